# docker build -t sensorium . && docker run -p 8000:8000 -e SENSORIUM_API_KEY=... sensorium RUN...
# With a GPU: --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04, docker run --gpus all.
ARG BASE=python:3.12-slim
FROM ${BASE}

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PATH=/opt/sensorium/bin:$PATH
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv libsndfile1 \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/sensorium

WORKDIR /src
COPY constraints.txt ./
RUN pip install -c constraints.txt setuptools wheel
COPY . .
# PIP_ARGS: other options of pip, such as an index with builds of torch for the CPU alone.
ARG PIP_ARGS=""
RUN pip install ${PIP_ARGS} -c constraints.txt --no-build-isolation ".[serve,retrieval,audio,mri,video]"

RUN useradd --create-home served
USER served
WORKDIR /home/served
EXPOSE 8000
ENTRYPOINT ["sensorium", "serve", "--host", "0.0.0.0", "--port", "8000"]
