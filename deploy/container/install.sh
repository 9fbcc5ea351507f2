#!/bin/sh
# Install Ponder with vLLM's BUILD (cpu or gpu) into a virtual environment at TARGET.
set -eu
build=$1 target=$2

# Compile bytecode now, because the root file system will be read-only.
uv() {
  "$target/bin/uv" pip install --no-cache --compile-bytecode --python "$target/bin/python" "$@"
}

set_up() {
  python3 -m venv "$target"
  "$target/bin/pip" install --no-cache-dir --constraint constraints.txt uv
}

case $build in
cpu)
  set_up
  # The +cpu torch first: otherwise packages that require torch would bring gigabytes of CUDA.
  uv --no-deps --torch-backend=cpu "$(grep '^torch==' constraints.txt)"
  uv --constraint constraints.txt --overrides deploy/overrides.txt ".[cpu,otel,fleet,shared]"
  ;;
gpu)
  set_up
  # vLLM's GPU build pins its own versions, which differ from constraints.txt.
  uv ".[gpu,otel,fleet,shared]"
  ;;
*)
  echo "BUILD is cpu or gpu, not $build" >&2
  exit 2
  ;;
esac
