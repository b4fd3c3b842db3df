# pleinair without a GPU: hosted models, servers on other machines, and the miniature world.
#   docker build --file docker/cpu.Dockerfile --tag pleinair .
#   docker run --rm --volume pleinair:/data --volume ~/pictures:/pictures:ro --env OPENAI_API_KEY pleinair \
#     draw "a hoopoe in the snow" --profile gpt_image --library /pictures
# PIP_EXTRA_INDEX_URL may name an index with torch's CPU builds, which are some gigabytes smaller.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock requirements-cpu.lock ./
COPY tools tools
COPY agent agent
COPY graphs graphs
COPY app app
COPY evals evals
RUN pip install --no-cache-dir --constraint requirements-cpu.lock ".[cpu,parquet]" && rm -r /src/*

RUN useradd --create-home --uid 1000 pleinair && mkdir /data && chown pleinair /data
USER pleinair
WORKDIR /data
ENV PLEINAIR_HOME=/data/home HF_HOME=/data/models
VOLUME /data
ENTRYPOINT ["pleinair"]
CMD ["--help"]
