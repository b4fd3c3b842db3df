# pleinair for the machines of a cluster: Postgres, object storage and Ray; docs/cluster.md. Every node of a Ray cluster
# needs the same Python, Ray and pleinair, which is easiest with one image.
#   docker build --file docker/cluster.Dockerfile --tag pleinair:cluster .
# For NVIDIA GPUs write gpu for cpu below, in the constraint and in the extras.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock requirements-cpu.lock requirements-outside.lock ./
COPY tools tools
COPY agent agent
COPY graphs graphs
COPY app app
COPY evals evals
RUN grep -v "^-r" requirements-outside.lock > cluster.lock \
 && pip install --no-cache-dir --constraint requirements-cpu.lock --constraint cluster.lock ".[cpu,parquet,cluster]" \
 && rm -r /src/*

RUN useradd --create-home --uid 1000 pleinair && mkdir /data && chown pleinair /data
USER pleinair
WORKDIR /data
ENV PLEINAIR_HOME=/data/home HF_HOME=/data/models RAY_USAGE_STATS_ENABLED=0
VOLUME /data
ENTRYPOINT ["pleinair"]
CMD ["--help"]
