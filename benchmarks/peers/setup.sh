#!/bin/sh
# The peers' environment in FOLDER (default .peers), from public packages: `make bench-peers`. FOLDER/python runs in it.
# mmcv has no build for a current PyTorch: its operators are compiled here, for about 20 minutes on two cores.
set -eu
mkdir -p "${1:-.peers}"
cd "${1:-.peers}"
here=$PWD
[ -x venv/bin/python ] || "${PYTHON:-python3}" -m venv venv
install() { venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
install --upgrade pip wheel "setuptools<81" ninja
install "torch==${TORCH:-2.13.0}" numpy scipy shapely terminaltables pycocotools opencv-python-headless matplotlib pillow \
    addict pyyaml yapf rich termcolor packaging psutil requests polars tqdm six
# Without their dependencies: they ask for a torchvision, which no CPU-only PyTorch has beside it.
install --no-deps mmengine mmdet==3.3.0 ultralytics==8.4.190 ultralytics-thop
if [ ! -f mmcv-2.1.0/compiled ]; then
    venv/bin/python -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation mmcv==2.1.0 -d .
    tar xf mmcv-2.1.0.tar.gz
    # Its C++ standard is too old for PyTorch's headers, which set their own.
    sed -i.old "s/'-std=c++1[47]'//" mmcv-2.1.0/setup.py
    (
        cd mmcv-2.1.0
        MMCV_WITH_OPS=1 MAX_JOBS=${JOBS:-2} ../venv/bin/python setup.py -q build_ext --inplace >build.log 2>&1
    ) || { tail -n 5 mmcv-2.1.0/build.log; exit 1; }
    touch mmcv-2.1.0/compiled
fi
printf '#!/bin/sh\nPYTHONPATH="%s/mmcv-2.1.0" exec "%s/venv/bin/python" "$@"\n' "$here" "$here" >python
chmod +x python
./python -c "import mmcv.ops, mmdet, pycocotools; print('The peers are ready.')"
