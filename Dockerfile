# The harness with the versions that its tests ran with.
#   docker build -t moe-safety-harness .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" moe-safety-harness run --output runs/demo
# With CUDA: the index of PyTorch's builds for the driver's version, or an empty one for PyPI's own build.
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t moe-safety-harness:cuda .
#   docker run --rm --gpus all ...
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=gguf,peft,plots

WORKDIR /opt/harness
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY baselines baselines
COPY harness harness
COPY reports reports
COPY tasks tasks
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX" python -m pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

# Any user may write here: the run folder then belongs to whoever runs the container. Models are cached beside it.
WORKDIR /work
RUN chmod 1777 .
ENV HOME=/work USER=harness
USER 1000:1000
ENTRYPOINT ["harness"]
CMD ["--help"]
