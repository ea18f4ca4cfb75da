# tood on CPUs: the server by default, any command of tood by its arguments.
#   docker build -f docker/cpu.Dockerfile -t tood:cpu .
#   docker run --rm -p 8000:8000 -v "$PWD/runs:/models:ro" tood:cpu serve /models/cells --host 0.0.0.0
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# Extras of the package, with commas.
ARG EXTRAS=small,serve,export,openvino
COPY constraints.txt /tmp/constraints.txt
# Of PyTorch's own index: the one of PyPI brings CUDA along, ten times as large.
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
      "tood[${EXTRAS}] @ file://$(find /tmp/wheels -name 'tood-*.whl')" \
    && rm -r /tmp/wheels \
    && useradd --create-home --uid 10001 tood \
    && install --directory --owner tood --group tood /cache
# Fetched weights are kept in /cache; models of your own are mounted, read-only, at /models.
ENV TOOD_CACHE=/cache HF_HOME=/cache/huggingface MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1 PYTHONUTF8=1
# By its number, which every host can tell from root.
USER 10001
WORKDIR /home/tood
VOLUME ["/cache"]
EXPOSE 8000
# A server that was told to stop answers what it has taken first.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["tood"]
CMD ["serve", "tood_r50_fpn_1x", "--host", "0.0.0.0"]
