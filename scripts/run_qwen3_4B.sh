#!/usr/bin/env bash
# GRPO on Qwen3-4B-Instruct-2507 with τ²-bench, one node, inside a slime container. Not yet run on GPUs.
#
#   SLIME_DIR=/root/slime OPENROUTER_API_KEY=... bash scripts/run_qwen3_4B.sh [further slime arguments]
#   DRY_RUN=1 ... prints the command and starts nothing
#
# Variables (default): SLIME_DIR (/root/slime), MEGATRON_DIR (/root/Megatron-LM), HF_CHECKPOINT
# (/root/Qwen3-4B-Instruct-2507), NUM_GPUS (8), RUN_DIR (./runs/qwen3-4B), DATA_DIR ($RUN_DIR/data), TAU2_CONFIG
# ($RUN_DIR/tau2.yaml, written at the first start), CONTEXT (16384 tokens per episode). The user models' keys are read from
# the environment by name; Ray's workers inherit them from this shell.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SLIME_DIR="${SLIME_DIR:-/root/slime}"
MEGATRON_DIR="${MEGATRON_DIR:-/root/Megatron-LM}"
HF_CHECKPOINT="${HF_CHECKPOINT:-/root/Qwen3-4B-Instruct-2507}"
NUM_GPUS="${NUM_GPUS:-8}"
RUN_DIR="${RUN_DIR:-$PWD/runs/qwen3-4B}"
export DATA_DIR="${DATA_DIR:-$RUN_DIR/data}" # eval_config.yaml reads it
TAU2_CONFIG="${TAU2_CONFIG:-$RUN_DIR/tau2.yaml}"
CONTEXT="${CONTEXT:-16384}"
TORCH_DIST="${HF_CHECKPOINT%/}_torch_dist"

MODEL_FILE="$SLIME_DIR/scripts/models/qwen3-4B-Instruct-2507.sh"
if [[ ! -f "$MODEL_FILE" ]]; then
    echo "no slime at SLIME_DIR=$SLIME_DIR ($MODEL_FILE is missing)" >&2
    exit 2
fi
# shellcheck source=/dev/null
source "$MODEL_FILE" # sets MODEL_ARGS

CKPT_ARGS=(
    --hf-checkpoint "$HF_CHECKPOINT"
    --ref-load "$TORCH_DIST"
    --load "$RUN_DIR/checkpoints" # resumes from here if there is something
    --save "$RUN_DIR/checkpoints"
    --save-interval 20
)
ROLLOUT_ARGS=(
    --custom-generate-function-path tau2_slime.generate_with_tau2.generate
    --custom-config-path "$TAU2_CONFIG"
    --prompt-data "$DATA_DIR/retail_telecom_train_tasks.jsonl"
    --input-key prompt
    --metadata-key metadata
    --rollout-shuffle
    --num-rollout 500
    --rollout-batch-size 32
    --n-samples-per-prompt 8
    --global-batch-size 256
    --rollout-temperature 1
    --rollout-max-response-len 8192
    --rollout-max-context-len "$CONTEXT"
    --dynamic-sampling-filter-path slime.rollout.filter_hub.dynamic_sampling_filters.check_reward_nonzero_std
    --over-sampling-batch-size 48
    --balance-data
)
EVAL_ARGS=(
    --eval-config "$HERE/eval_config.yaml"
    --eval-interval 20
    --n-samples-per-eval-prompt 4 # slime's pass@k takes the group size from here, not from the file
    --log-passrate
)
GRPO_ARGS=(
    --advantage-estimator grpo
    --eps-clip 0.2
    --eps-clip-high 0.28
    --entropy-coef 0.0
    --use-tis # the sampler's log-probs are exact: correct for the difference to the trainer's
)
OPTIMIZER_ARGS=(--optimizer adam --lr 1e-6 --lr-decay-style constant --weight-decay 0.1 --adam-beta1 0.9 --adam-beta2 0.98)
PARALLEL_ARGS=(
    --tensor-model-parallel-size 2
    --sequence-parallel
    --recompute-granularity full
    --recompute-method uniform
    --recompute-num-layers 1
    --use-dynamic-batch-size
    --max-tokens-per-gpu "$CONTEXT"
    --attention-dropout 0.0
    --hidden-dropout 0.0
    --accumulate-allreduce-grads-in-fp32
    --attention-softmax-in-fp32
    --attention-backend flash
)
SERVER_ARGS=(--rollout-num-gpus-per-engine 1 --sglang-mem-fraction-static 0.7)

RUNTIME_ENV="{\"env_vars\": {\"PYTHONPATH\": \"$MEGATRON_DIR:$SLIME_DIR\", \"CUDA_DEVICE_MAX_CONNECTIONS\": \"1\", \"DATA_DIR\": \"$DATA_DIR\"}}"
COMMAND=(
    ray job submit --address http://127.0.0.1:8265 --runtime-env-json "$RUNTIME_ENV" --
    python3 "$SLIME_DIR/train.py"
    --actor-num-nodes 1 --actor-num-gpus-per-node "$NUM_GPUS" --colocate
    "${MODEL_ARGS[@]}" "${CKPT_ARGS[@]}" "${ROLLOUT_ARGS[@]}" "${EVAL_ARGS[@]}" "${GRPO_ARGS[@]}"
    "${OPTIMIZER_ARGS[@]}" "${PARALLEL_ARGS[@]}" "${SERVER_ARGS[@]}" "$@"
)
if [[ -n "${DRY_RUN:-}" ]]; then
    printf '%q ' "${COMMAND[@]}"
    echo
    exit 0
fi

mkdir -p "$RUN_DIR"
if [[ ! -d "$TORCH_DIST" ]]; then
    echo "$TORCH_DIST is missing; make it once with slime's converter:" >&2
    echo "  cd $SLIME_DIR && source $MODEL_FILE && PYTHONPATH=$MEGATRON_DIR python tools/convert_hf_to_torch_dist.py \\" >&2
    echo "      \${MODEL_ARGS[@]} --hf-checkpoint $HF_CHECKPOINT --save $TORCH_DIST" >&2
    exit 2
fi
[[ -f "$TAU2_CONFIG" ]] || printf 'tau2:\n  user_model: openrouter/deepseek/deepseek-v3.2\n  user_api_key_var: OPENROUTER_API_KEY\n' >"$TAU2_CONFIG"
[[ -f "$DATA_DIR/retail_telecom_train_tasks.jsonl" ]] ||
    python "$HERE/data_prep/prepare_tau2_data.py" --output_dir "$DATA_DIR" --multi-domain-train retail telecom
tau2-slime doctor --hf-checkpoint "$HF_CHECKPOINT" --config "$TAU2_CONFIG"

ray start --head --node-ip-address 127.0.0.1 --num-gpus "$NUM_GPUS" --disable-usage-stats --dashboard-port 8265
trap 'ray stop' EXIT # only what this script started
"${COMMAND[@]}"
