#!/usr/bin/env bash
# usage: tools/processor.sh avx2|sse COMMAND ...
# Run COMMAND as a processor without AVX-512 (avx2), or without fused multiply-add (sse), would compute it: oneDNN, ATen,
# MKL, OpenBLAS and numpy are told to use no newer instructions. On Arm this changes little. Runs go to a new folder,
# which is removed at the end, unless MMSA_LIB_RUNS names another: a finished run would be returned, not computed.
set -euo pipefail
dispatched() { # what numpy chooses at run time, without the names given
	"${VENV:-.venv}/bin/python" -c '
import sys
from numpy._core._multiarray_umath import __cpu_dispatch__ as names
print(*(name for name in names if name not in sys.argv[1:]))' "$@" 2>/dev/null || true
}

case "$1" in
avx2)
	export ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 OPENBLAS_CORETYPE=Haswell
	features=$(dispatched X86_V3 AVX2 FMA3)
	;;
sse)
	export ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem
	features=$(dispatched)
	;;
*)
	echo "usage: tools/processor.sh avx2|sse COMMAND ..." >&2
	exit 2
	;;
esac
export NPY_DISABLE_CPU_FEATURES="$features"
shift
if test -n "${MMSA_LIB_RUNS:-}"; then exec env "$@"; fi
MMSA_LIB_RUNS=$(mktemp -d)
export MMSA_LIB_RUNS
trap 'rm -rf "$MMSA_LIB_RUNS"' EXIT
env "$@" # `env`, since a command may begin with NAME=value
