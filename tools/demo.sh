#!/usr/bin/env bash
# The whole pipeline on phantom legs, on a CPU, in minutes: phantom, plan, train, predict, evaluate,
# report. Everything lands in demo/; run it again and it resumes where it stopped.
#   bash tools/demo.sh [MINUTES]     how long to train, 5 by default
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1-5}
if [[ $# -gt 1 || ! $minutes =~ ^[0-9]+(\.[0-9]+)?$ || ! $minutes =~ [1-9] ]]; then
    echo "demo.sh: expected how many minutes to train, such as 5 or 0.5, found '$*'; write bash tools/demo.sh 5" >&2
    exit 2
fi
. tools/environment.sh

place=(--root demo --dataset Phantom)
say() { printf '\n\033[1m== %s\033[0m\n' "$1" >&2; }

say "1/6 Phantom: 120 synthetic patients (tiny and easy; strongly simplified legs, not evidence of clinical accuracy)"
# dataset.json is written last: without it, the patients are what an interruption left.
[ -f demo/datasets_raw/Phantom/dataset.json ] ||
    python tools/make_phantom.py "${place[@]}" --scale tiny --difficulty easy --cases 120 --seed 2019 --jobs 2 \
        --overwrite

say "2/6 Plan and preprocess"
dvt_plan_and_preprocess "${place[@]}" --folds 10

say "3/6 Train fold 0 for $minutes minutes and predict its test patients"
if [ -f demo/results/Phantom/gn_unet/fold_0/checkpoint.pt ]; then
    dvt_train 0 "${place[@]}" --resume
else
    dvt_train 0 "${place[@]}" --recipe modern --time-budget "${minutes}m"
fi

say "4/6 Predict a scan as a new user would"
dvt_predict -i demo/datasets_raw/Phantom/imagesTr/leg_002_0000.nii.gz -o demo/new_scan.nii.gz \
    --model demo/results/Phantom/gn_unet

say "5/6 Evaluate: Table 1 on the phantom, and a picture of every test patient"
dvt_evaluate "${place[@]}" --split proximal/distal --overlays

say "6/6 Report: everything on one page"
dvt_report "${place[@]}"
