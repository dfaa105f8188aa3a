#!/bin/sh
# Prints what benchmark_model prints, for a network of two nodes; the file `behave` changes it.
here=$(dirname "$0")
echo "$@" >>"$here/calls"
runs=5
for word in "$@"; do
  case $word in
    --help) echo "usage: benchmark_model"; exit 1 ;;
    --graph=*) graph=$(basename "${word#--graph=}") ;;
    --num_runs=*) runs=${word#--num_runs=} ;;
    --enable_op_profiling=true) profiled=yes ;;
    --use_xnnpack=true) delegated=yes ;;
  esac
done
[ -f "$here/behave" ] && . "$here/behave"
echo "INFO: STARTING!"
[ -z "$delegated" ] || echo "INFO: Explicitly applied XNNPACK delegate, and the model graph will be \
${taken:-completely} executed by the delegate."
echo "INFO: count=1 curr=2100 p5=2100 median=2100 p95=2100"
echo
echo "INFO: count=$runs first=1100 curr=1010 min=1000 max=1500 avg=1104.5 std=90 p5=1000 median=1020 p95=1400"
echo
echo "INFO: Inference timings in us: Init: 1500, First inference: 2100, Warmup (avg): 2100, Inference (avg): 1104.5"
echo "INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=4"
[ -z "$profiled" ] || cat "$here/profile"
