# JupyterLab over this project, with the packages of the lock and without installing anything but Docker:
#   docker build --tag mmsa-lib .
#   docker run --rm --publish 127.0.0.1:8888:8888 mmsa-lib     # then open the address that it prints
# An index with CPU builds of torch saves gigabytes: --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL
ENV OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

RUN useradd --create-home --uid 1000 reader && mkdir /mmsa-lib && chown reader /mmsa-lib
WORKDIR /mmsa-lib

COPY requirements.lock ./
RUN python -m pip install -r requirements.lock
COPY --chown=reader . ./
RUN python -m pip install --no-deps --no-build-isolation -e .

USER reader
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks/00_start_here.ipynb"]
