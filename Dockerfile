# rlm-env with its environments, for models behind any OpenAI-compatible endpoint:
#   docker build -t rlm-env .
#   docker run --rm -e OPENAI_API_KEY -v "$PWD/outputs:/work/outputs" rlm-env \
#       eval needle-rlm --model gpt-5-mini --base-url https://api.openai.com/v1 --api-key-env OPENAI_API_KEY -n 8
# With a local vLLM and the trainer, for CUDA (vLLM compiles kernels, so it wants a compiler):
#   docker build -t rlm-env --build-arg EXTRAS=repl,data,math,web,files,vllm,train,report \
#       --build-arg SYSTEM_PACKAGES="gcc libc6-dev" .
# It has been checked by a linter and its commands were run without a container engine; an image was not built.
# How to confine a container further: docs/sandbox.md.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ARG EXTRAS=repl,data,math,web,files
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/rlm-env
ENV PATH=/opt/rlm-env/bin:$PATH
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY rlm_env ./rlm_env
COPY rewards ./rewards
COPY environments ./environments
RUN pip install ".[${EXTRAS}]" ./environments/*/

FROM python:${PYTHON}-slim-bookworm
ARG SYSTEM_PACKAGES=""
RUN if [ -n "$SYSTEM_PACKAGES" ]; then \
        apt-get update && apt-get install -y --no-install-recommends $SYSTEM_PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi
# Code that a model wrote runs here: in its sandbox, and as nobody in particular.
RUN useradd --create-home --uid 1000 rlm && install --directory --owner rlm --group rlm /work /work/outputs
COPY --from=build /opt/rlm-env /opt/rlm-env
ENV PATH=/opt/rlm-env/bin:$PATH PYTHONUNBUFFERED=1
USER rlm
WORKDIR /work
ENTRYPOINT ["rlm-env"]
CMD ["--help"]
