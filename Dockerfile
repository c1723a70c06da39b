# docker build -t resegeo . && docker run --rm -v "$PWD:/data" -w /data resegeo segment scene.tif --prompts classes.yml
# Everything comes from pyproject.toml. Never built where this was written, since there was no Docker.
FROM python:3.12-slim

# What opencv-python-headless wants of the system; rasterio, pyogrio and torch bring their own libraries.
RUN apt-get update && apt-get install --yes --no-install-recommends libglib2.0-0 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/resegeo
COPY pyproject.toml README.md LICENSE ./
COPY resegeo resegeo
COPY cli cli
RUN pip install --no-cache-dir . && useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["resegeo"]
