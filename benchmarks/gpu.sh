#!/usr/bin/env bash
# What one GPU makes of crossfake, in at most 12 minutes:  benchmarks/gpu.sh [FOLDER for results]
# GPU-marked tests, float32 beside bfloat16, rates and peak memory of three families at two sizes, --resume, detectors.
# Each part has its own limit, so that a slow one takes nothing from the next. Ends with 1 where a part failed.
# On a CPU, tiny, for its test:  DEVICE=cpu SIZES=16 SMALL="--batch 8 --channels 64 --images 16 --seconds 0.1" …
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda} SIZES=${SIZES:-64 256} SMALL=${SMALL:-}
FAMILIES=${FAMILIES:-stylegan2 r3gan stylegan3} MODELS=${MODELS:-resnet18 vit_small_patch16_224} SIDE=${SIDE:-224} PATIENCE=${PATIENCE:-1}
out=${1:-runs/gpu}
mkdir -p "$out"
: >"$out/gpu.jsonl"
failed=0

part() { # seconds, what to say, command
  printf '\n==> %s (%d s)\n' "$2" "$SECONDS"
  timeout --kill-after=5 $(($1 * PATIENCE)) "${@:3}" || { echo "failed with $? after at most $(($1 * PATIENCE)) s: $2"; failed=1; }
}
measured() { # seconds, part of gpu.py, its options; the last line is the result
  part "$1" "${*:2}" "$PYTHON" benchmarks/gpu.py "${@:2}" --device "$DEVICE" $SMALL >"$out/part.txt"
  cat "$out/part.txt"
  grep '^{"part"' "$out/part.txt" >>"$out/gpu.jsonl"
}

[ "$DEVICE" = cpu ] || nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$out/gpu.txt"
part 120 "tests marked gpu" "$PYTHON" -m pytest -q -m gpu ${TESTS:-tests}
for size in $SIZES; do # 3 families of 30 and 60 s
  for family in $FAMILIES; do
    measured $((size < 128 ? 45 : 75)) rates --family "$family" --size "$size"
  done
done
measured 60 resume
for model in $MODELS; do
  measured 60 detector --model "$model" --size "$SIDE"
done
printf '\n%s: %d s in all\n' "$out/gpu.jsonl" "$SECONDS"
exit $failed
