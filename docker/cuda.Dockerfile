# pleinair with an NVIDIA GPU; torch's wheels bring the CUDA libraries, the host its driver and container toolkit.
#   docker build --file docker/cuda.Dockerfile --tag pleinair:cuda .
#   docker run --rm --gpus all --volume pleinair:/data pleinair:cuda models pull klein --yes
#   docker run --rm --gpus all --network host --volume pleinair:/data --volume ~/pictures:/pictures:ro pleinair:cuda \
#     draw "a hoopoe in the snow" --profile klein+ollama --library /pictures
FROM python:3.11-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock requirements-gpu.lock ./
COPY tools tools
COPY agent agent
COPY graphs graphs
COPY app app
COPY evals evals
RUN pip install --no-cache-dir --constraint requirements-gpu.lock ".[gpu,parquet]" && rm -r /src/*

RUN useradd --create-home --uid 1000 pleinair && mkdir /data && chown pleinair /data
USER pleinair
WORKDIR /data
ENV PLEINAIR_HOME=/data/home HF_HOME=/data/models
VOLUME /data
ENTRYPOINT ["pleinair"]
CMD ["--help"]
