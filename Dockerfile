# vbinfer on a CPU: `docker build -t vbinfer . && docker run --rm -v "$PWD:/work" vbinfer run study.toml`
FROM python:3.12-slim

# the CPU build of torch: the index of PyPI gives several GB of GPU libraries with it
ARG TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
RUN pip install --no-cache-dir $TORCH

WORKDIR /opt/vbinfer
COPY pyproject.toml README.md LICENSE ./
COPY vbinfer vbinfer
COPY data data
RUN pip install --no-cache-dir .
RUN cd / && VBINFER_DATA=/opt/vbinfer/data python -c "import vbinfer as vb; vb.load_connectome('hcp-aal2')"

# the recordings are under the HCP Open Access Data Use Terms, data/hcp_aal2/LICENSE.md: do not publish an image with them
ENV VBINFER_DATA=/opt/vbinfer/data
WORKDIR /work
ENTRYPOINT ["vbinfer"]
CMD ["demo"]
