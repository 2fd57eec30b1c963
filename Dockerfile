# The service as a container image: nothing but Python, the pinned dependencies and this package, run by a fixed user that owns
# none of it. Plain Dockerfile syntax: Docker, buildx, buildah and podman build it alike.
#
#   docker build -t sknet-serve .                                          # the ordinary torch: CPU and CUDA, several GB
#   docker build -t sknet-serve --build-arg TORCH_INDEX=<PyTorch's CPU index> .     # CPU only, a fraction of that
#   docker build -t sknet-serve:slim --target slim .                       # without torch: the bundled checkpoint, on the CPU
#   docker build -t sknet-serve:gpu --target gpu .                         # with a C compiler, for the engine of NVIDIA GPUs
#   docker run --read-only --tmpfs /tmp -p 8000:8000 sknet-serve           # on port 8000, or on SKNET_PORT
#   docker run --read-only --tmpfs /tmp -p 8080:8080 sknet-serve serve     # on port 8080, or on SKNET_PORT: as SageMaker runs it

# Every stage starts from it, so that the virtual environment finds the same interpreter in the image as where it was made.
ARG BASE=python:3.13-slim


FROM ${BASE} AS light
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements.lock ./
# torch and what only torch needs, apart from the rest: they are nearly all of the image's size, and another index has other files.
RUN awk '/^[a-z]/ {heavy = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/} \
         {print > (heavy ? "torch.lock" : "rest.lock")}' requirements.lock
# The lock is complete, hence --no-deps, and `pip check` holds that it is.
RUN /opt/venv/bin/python -m pip install --no-compile --no-deps --require-hashes --requirement rest.lock \
    && /opt/venv/bin/python -m pip check \
    && echo /opt/app > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sknet-app.pth"


FROM light AS dependencies
# Empty: torch as the lock pins it, verified by its hashes. Given: the same versions from that index. Its wheels are other builds
# ("+cpu"), whose hashes the lock cannot know, so here the index is trusted; everything else stays verified.
ARG TORCH_INDEX=""
RUN if [ -z "${TORCH_INDEX}" ]; then \
        /opt/venv/bin/python -m pip install --no-compile --no-deps --require-hashes --requirement torch.lock; \
    else \
        /opt/venv/bin/python -m pip install --no-compile --no-deps --index-url "${TORCH_INDEX}" \
            $(grep -oE '^(torch|torchvision)==[0-9.]+' torch.lock); \
    fi
# pip has no business in the image. Bytecode is compiled here because nothing can be written later, and never compared with its
# source, so that changed file dates do not void it.
RUN /opt/venv/bin/python -m pip check \
    && /opt/venv/bin/python -m pip uninstall --yes --quiet pip \
    && python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib


FROM light AS slim-dependencies
RUN /opt/venv/bin/python -m pip uninstall --yes --quiet pip \
    && python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib


# The package itself, in a folder and a layer of its own: a change of code leaves the gigabytes of dependencies alone.
FROM ${BASE} AS application
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# At the path that the environment has in the image: the first line of the console script names this interpreter.
RUN python -m venv /opt/venv
COPY requirements.lock ./
RUN awk '/^[a-z]/ {wanted = /^setuptools==/} wanted' requirements.lock > setuptools.lock \
    && /opt/venv/bin/python -m pip install --no-deps --require-hashes --requirement setuptools.lock
COPY pyproject.toml README.md ./
COPY app ./app
COPY model ./model
RUN /opt/venv/bin/python -m pip install --no-compile --no-deps --no-build-isolation --target /opt/app . \
    && python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/app


# The bundled checkpoint as the engine of processors reads it: a container starts in a second, and needs no torch to serve it.
FROM dependencies AS graphs
COPY --from=application /opt/app /opt/app
RUN PATH=/opt/app/bin:/opt/venv/bin:$PATH sknet export --beside


FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="sknet-serve" \
      org.opencontainers.image.description="Selective Kernel Networks behind HTTP: image classification as a service" \
      org.opencontainers.image.licenses="MIT"

# A number nobody has to look up: volumes are given to it, and orchestrators can see that it is not root.
RUN groupadd --gid 10001 sknet \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/sknet --shell /usr/sbin/nologin sknet \
    && install --directory --owner 10001 --group 10001 --mode 0750 /var/cache/sknet
COPY --from=application /opt/app /opt/app
COPY --from=graphs /opt/app/model/checkpoints/graphs /opt/app/model/checkpoints/graphs

# HOME is the cache volume: what a library keeps "at home" lands in the one place that may be written and lasts.
ENV PATH=/opt/app/bin:/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/cache/sknet \
    SKNET_HOST=0.0.0.0 \
    SKNET_CACHE_DIR=/var/cache/sknet

WORKDIR /
# All that is ever written: downloads, exported graphs, and on a GPU what was compiled.
VOLUME /var/cache/sknet
EXPOSE 8000 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["sknet", "--in-image", "health"]
# In the image, no command at all serves as well, so that it differs from `serve`, which platforms say that ask on port 8080.
ENTRYPOINT ["sknet", "--in-image"]
CMD []


# Without torch: serves on processors what has an exported graph, such as the bundled checkpoint, and nothing else.
FROM runtime AS slim
COPY --from=slim-dependencies /opt/venv /opt/venv
USER 10001:10001


FROM runtime AS ordinary
COPY --from=dependencies /opt/venv /opt/venv
USER 10001:10001


# For NVIDIA GPUs: Triton builds C launchers against Python's headers while the network is compiled. The base has the headers, a
# base with Debian's own Python needs their package.
FROM ordinary AS gpu
USER 0:0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && if [ ! -f "$(python -c 'import sysconfig; print(sysconfig.get_path("include", "posix_prefix"))')/Python.h" ]; then \
        apt-get install --yes --no-install-recommends libpython3-dev; \
    fi \
    && rm -rf /var/lib/apt/lists/*
# What is compiled is loaded from where it is kept. Not in /tmp, which Docker mounts noexec; in the volume it also lasts.
ENV TORCHINDUCTOR_CACHE_DIR=/var/cache/sknet/inductor \
    TRITON_CACHE_DIR=/var/cache/sknet/inductor/triton
USER 10001:10001


# The last one is what is built where no target is named.
FROM ordinary
