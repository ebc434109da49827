# syntax=docker/dockerfile:1
# Two stages: the first installs what the lock file pins, the second holds only the result and runs as nobody in particular.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/stepwell
COPY requirements.txt ./
RUN /opt/stepwell/bin/python -m pip install --require-hashes --only-binary :all: -r requirements.txt
COPY pyproject.toml README.md ./
COPY app ./app
COPY workers ./workers
COPY migrations ./migrations
COPY templates ./templates
COPY static ./static
COPY docs/invariants.sql ./docs/invariants.sql
RUN /opt/stepwell/bin/python -m pip install --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/stepwell --create-home stepwell
COPY --from=build /opt/stepwell /opt/stepwell
ENV PATH=/opt/stepwell/bin:$PATH STEPWELL_HOST=0.0.0.0 STEPWELL_PORT=8288 STEPWELL_DATA_DIR=/var/lib/stepwell PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/stepwell
EXPOSE 8288
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8288/health', timeout=2)"]
ENTRYPOINT ["stepwell"]
CMD ["web"]
