# The README's two commands as an image for the CPU:
#     docker build -t policyopt . && docker run --rm -v "$PWD/runs:/gail/runs" policyopt
# It holds MuJoCo and seals too; any other command follows the image's name, such as `gail-pipeline --help`.
FROM python:3.12-slim
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
COPY . /gail
WORKDIR /gail
# installs requirements.lock and this checkout, and lists what the second call would do
RUN bash scripts/run_all.sh -n
RUN pip install -r requirements-mujoco.lock -r requirements-seals.lock
CMD ["bash", "scripts/run_all.sh"]
