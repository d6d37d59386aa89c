#!/usr/bin/env bash
# GRPO (or SFT) of Qwen3-4B or another model with τ²-bench, inside a slime container. docs/training.md explains every step.
# Not yet run on GPUs.
#
#   bash scripts/run_qwen3_4B.sh [--dry-run] [further slime arguments]    check everything, start Ray, train
#   bash scripts/run_qwen3_4B.sh join                                     on every other node of a run with NUM_NODES > 1
#
# --dry-run (or DRY_RUN=1) prints what would run, and starts nothing. Everything below can be set in the environment;
# slime arguments at the end of the command line win over the script's own. The keys of the user models
# (OPENROUTER_API_KEY, ...) and WANDB_API_KEY are read from the environment of each node and written nowhere.
set -euo pipefail
REPO="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

# ---- what to set -------------------------------------------------------------------------------------------------------
# Model: Qwen3-4B, -8B, -30B-A3B, Qwen3.5-4B, -9B, GLM-4.7-Flash or a fine-tuned one; others with MODEL_FILE.
HF_CHECKPOINT="${HF_CHECKPOINT:-/root/Qwen3-4B-Instruct-2507}"
TORCH_DIST="${TORCH_DIST:-${HF_CHECKPOINT%/}_torch_dist}" # the same weights, converted once; or a run's checkpoints folder
MODEL_FILE="${MODEL_FILE:-}"                              # of slime's scripts/models; empty: by the checkpoint's config.json
THINKING="${THINKING:-}"                                  # on, off, or empty: as the checkpoint's template has it

# Places. On several nodes all of them are the same paths on shared storage.
SLIME_DIR="${SLIME_DIR:-/root/slime}"
MEGATRON_DIR="${MEGATRON_DIR:-/root/Megatron-LM}"
RUN_DIR="${RUN_DIR:-$PWD/runs/qwen3-4B}"    # checkpoints, TensorBoard; a second start continues from here
DATA_DIR="${DATA_DIR:-$REPO/data}"          # eval_config.yaml reads this variable too
PROMPT_DATA="${PROMPT_DATA:-$DATA_DIR/retail_telecom_train_tasks.jsonl}"
EVAL_CONFIG="${EVAL_CONFIG:-$REPO/eval_config.yaml}"
TAU2_CONFIG="${TAU2_CONFIG:-}"              # YAML with a tau2: mapping; empty: the TAU2_* variables say it all

# Machines.
MODE="${MODE:-sync}"                # sync, partial (unfinished episodes go on in the next rollout), fully-async, or sft
SFT_DATA="${SFT_DATA:-}"            # sft: a folder of `tau2-slime export --format slime-sft`, which says the steps, too
NUM_GPUS="${NUM_GPUS:-8}"           # of each node
NUM_NODES="${NUM_NODES:-1}"
HEAD_ADDRESS="${HEAD_ADDRESS:-}"    # NUM_NODES > 1: the address of the first node that the others reach
RAY_PORT="${RAY_PORT:-6379}"
DASHBOARD_PORT="${DASHBOARD_PORT:-8265}"
JOIN_TIMEOUT="${JOIN_TIMEOUT:-900}" # seconds that the first node waits for the others
RAY_ADDRESS="${RAY_ADDRESS:-}"      # http://host:8265 of a Ray cluster that is already there: start and stop none
TRAIN_GPUS="${TRAIN_GPUS:-}"        # fully-async: GPUs that train, of all nodes together; the others sample. Empty: half
# Tensor, context and expert parallelism of the trainer, Adam in the host's memory (1) or not (0), and the GPUs of one
# engine. Empty: the first that fits into 80 GB by benchmarks/memory.py.
TP="${TP:-}" CP="${CP:-}" EP="${EP:-}" OFFLOAD="${OFFLOAD:-}" ENGINE_GPUS="${ENGINE_GPUS:-}"

# Rollouts. One rollout = ROLLOUT_BATCH_SIZE tasks x SAMPLES_PER_PROMPT episodes = one optimizer step.
NUM_ROLLOUT="${NUM_ROLLOUT:-500}"
ROLLOUT_BATCH_SIZE="${ROLLOUT_BATCH_SIZE:-32}"
SAMPLES_PER_PROMPT="${SAMPLES_PER_PROMPT:-8}"
OVER_SAMPLING="${OVER_SAMPLING:-}"        # tasks started at a time; sync and partial. Empty: 1.5 x ROLLOUT_BATCH_SIZE
CONTEXT="${CONTEXT:-}"                    # tokens of a whole episode; empty: 32768, or 16384 if that does not fit
MAX_RESPONSE_LEN="${MAX_RESPONSE_LEN:-8192}" # tokens of one turn
MAX_TOKENS_PER_GPU="${MAX_TOKENS_PER_GPU:-16384}" # a micro-batch; one longer episode makes a micro-batch of its own
SERVER_CONCURRENCY="${SERVER_CONCURRENCY:-}" # sync, partial: episodes at a time per engine; fully-async: groups too
MASK_OFFPOLICY="${MASK_OFFPOLICY:-0}"     # partial: 1 = do not train on tokens of earlier weights
LEARNING_RATE="${LEARNING_RATE:-}"        # empty: 1e-6, constant; sft: 1e-5, falling to a tenth

# Evaluation, checkpoints, curves.
EVAL_INTERVAL="${EVAL_INTERVAL:-20}"      # rollouts; 0: never
SAVE_INTERVAL="${SAVE_INTERVAL:-20}"
KEEP_CHECKPOINTS="${KEEP_CHECKPOINTS:-all}" # all, or last (about 56 GB each for a 4B model)
WANDB_PROJECT="${WANDB_PROJECT:-}"        # empty: TensorBoard in $RUN_DIR/tensorboard
WANDB_GROUP="${WANDB_GROUP:-qwen3-4B-tau2-$MODE}"
CALL_USER_MODELS="${CALL_USER_MODELS:-1}" # 1: one real call of every user model before the start; 0: only its key

# The user simulator of training, unless TAU2_USER_MODEL, TAU2_USER_MODEL_ROTATION or TAU2_CONFIG names others.
if [[ -z "$TAU2_CONFIG" && -z "${TAU2_USER_MODEL:-}" && -z "${TAU2_USER_MODEL_ROTATION:-}" ]]; then
    export TAU2_USER_MODEL=openrouter/deepseek/deepseek-v3.2
    export TAU2_USER_API_KEY_VAR="${TAU2_USER_API_KEY_VAR:-OPENROUTER_API_KEY}"
fi
# ------------------------------------------------------------------------------------------------------------------------

die() {
    printf 'run_qwen3_4B.sh: %s\n' "$*" >&2
    exit 2
}
note() { printf '# %s\n' "$*" >&2; }

ROLE="head"
DRY_RUN="${DRY_RUN:-}"
[[ "$DRY_RUN" != 0 ]] || DRY_RUN=""
EXTRA=()
for word in "$@"; do
    case "$word" in
        --dry-run) DRY_RUN=1 ;;
        -h | --help)
            sed -n '2,/^# ---- what/{/^# ----/!p}' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
            echo "Its variables, with their defaults, are the first lines of $REPO/scripts/run_qwen3_4B.sh."
            exit 0
            ;;
        join) [[ ${#EXTRA[@]} -eq 0 ]] && ROLE="join" || EXTRA+=("$word") ;;
        *) EXTRA+=("$word") ;;
    esac
done
[[ "$ROLE" == head || ${#EXTRA[@]} -eq 0 ]] || die "join takes no further arguments: ${EXTRA[*]}"
# A word that is not an option, before the first option: a misspelt command, or a mode.
[[ ${#EXTRA[@]} -eq 0 || "${EXTRA[0]}" == --* ]] || die "unknown word '${EXTRA[0]}': join, --dry-run, or slime's --arguments"

# ---- settings that contradict each other -------------------------------------------------------------------------------
for name in NUM_GPUS NUM_NODES NUM_ROLLOUT ROLLOUT_BATCH_SIZE SAMPLES_PER_PROMPT MAX_RESPONSE_LEN \
    MAX_TOKENS_PER_GPU SAVE_INTERVAL EVAL_INTERVAL RAY_PORT DASHBOARD_PORT JOIN_TIMEOUT; do
    # bash would run a command that stands in a "number", and read one with a 0 in front as octal.
    [[ "${!name}" =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "$name=${!name} is not a number"
    [[ "$name" == EVAL_INTERVAL || "${!name}" -gt 0 ]] || die "$name=${!name}: at least 1"
done
for name in TRAIN_GPUS TP CP EP ENGINE_GPUS SERVER_CONCURRENCY CONTEXT OVER_SAMPLING; do
    [[ -z "${!name}" || "${!name}" =~ ^[1-9][0-9]{0,8}$ ]] || die "$name=${!name} is not a number above 0"
done
OVER_SAMPLING="${OVER_SAMPLING:-$((ROLLOUT_BATCH_SIZE * 3 / 2))}"
if [[ -n "${TAU2_USER_API_KEY_VAR:-}" && ! "$TAU2_USER_API_KEY_VAR" =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then
    die "TAU2_USER_API_KEY_VAR: give the NAME of the variable that holds the key, never the key itself"
fi
case "$MODE" in sync | partial | fully-async | sft) ;; *) die "MODE=$MODE: sync, partial, fully-async or sft" ;; esac
case "$OFFLOAD" in "" | 0 | 1) ;; *) die "OFFLOAD=$OFFLOAD: 1 (Adam in the host's memory), 0 or empty" ;; esac
case "$THINKING" in
    "") ;;
    on | off) # the switch of Qwen3, Qwen3.5 and GLM templates; the doctor proves the template with it
        [[ -z "${TAU2_CHAT_TEMPLATE_KWARGS:-}" ]] || die "THINKING=$THINKING and TAU2_CHAT_TEMPLATE_KWARGS say the same thing twice"
        export TAU2_CHAT_TEMPLATE_KWARGS="{\"enable_thinking\": $([[ "$THINKING" == on ]] && echo true || echo false)}"
        ;;
    *) die "THINKING=$THINKING: on, off or empty" ;;
esac
if [[ "$MODE" == sft ]]; then
    [[ -n "$SFT_DATA" ]] || die "MODE=sft needs SFT_DATA, a folder of: tau2-slime export RUN --format slime-sft --output-dir FOLDER"
    EVAL_INTERVAL=0 SAMPLES_PER_PROMPT=1
else
    [[ -z "$SFT_DATA" ]] || die "SFT_DATA=$SFT_DATA is for MODE=sft"
    [[ "$SAMPLES_PER_PROMPT" -ge 2 ]] || die "SAMPLES_PER_PROMPT=1: GRPO compares the episodes of one task, 2 at least"
fi
case "$KEEP_CHECKPOINTS" in all | last) ;; *) die "KEEP_CHECKPOINTS=$KEEP_CHECKPOINTS: all or last" ;; esac
[[ "$OVER_SAMPLING" -ge "$ROLLOUT_BATCH_SIZE" ]] || die "OVER_SAMPLING=$OVER_SAMPLING is less than ROLLOUT_BATCH_SIZE=$ROLLOUT_BATCH_SIZE"
if [[ "$NUM_NODES" -gt 1 || "$ROLE" == join ]]; then
    [[ -n "$HEAD_ADDRESS" || -n "$RAY_ADDRESS" ]] ||
        die "several nodes need HEAD_ADDRESS, the first node's address as the others reach it (there: hostname -I)"
fi
[[ "$ROLE" == head || -z "$RAY_ADDRESS" ]] || die "join starts Ray on this node, and RAY_ADDRESS=$RAY_ADDRESS says that it runs already"
HEAD_ADDRESS="${HEAD_ADDRESS:-127.0.0.1}"

absolute() { case "$1" in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac }
for name in HF_CHECKPOINT TORCH_DIST SLIME_DIR MEGATRON_DIR RUN_DIR DATA_DIR PROMPT_DATA EVAL_CONFIG; do
    printf -v "$name" '%s' "$(absolute "${!name}")" # Ray's job runs in another folder
done
[[ -z "$TAU2_CONFIG" ]] || TAU2_CONFIG="$(absolute "$TAU2_CONFIG")"
[[ -z "$SFT_DATA" ]] || SFT_DATA="$(absolute "$SFT_DATA")"
export DATA_DIR

ALL_GPUS=$((NUM_NODES * NUM_GPUS))
TRAIN_SCRIPT=train.py
if [[ "$MODE" == fully-async ]]; then
    TRAIN_SCRIPT=train_async.py
    [[ "$ALL_GPUS" -ge 2 ]] || die "MODE=fully-async trains and samples on different GPUs: 2 at least"
    TRAIN_GPUS="${TRAIN_GPUS:-$((ALL_GPUS / 2))}"
    [[ "$TRAIN_GPUS" -lt "$ALL_GPUS" ]] || die "TRAIN_GPUS=$TRAIN_GPUS leaves none of $ALL_GPUS GPUs for sampling"
    if [[ "$TRAIN_GPUS" -le "$NUM_GPUS" ]]; then
        ACTOR_NODES=1 ACTOR_GPUS=$TRAIN_GPUS
    else
        [[ $((TRAIN_GPUS % NUM_GPUS)) -eq 0 ]] || die "TRAIN_GPUS=$TRAIN_GPUS must be whole nodes of NUM_GPUS=$NUM_GPUS"
        ACTOR_NODES=$((TRAIN_GPUS / NUM_GPUS)) ACTOR_GPUS=$NUM_GPUS
    fi
else
    [[ -z "$TRAIN_GPUS" ]] || die "TRAIN_GPUS=$TRAIN_GPUS is for MODE=fully-async: in MODE=$MODE every GPU trains and samples"
    TRAIN_GPUS=$ALL_GPUS ACTOR_NODES=$NUM_NODES ACTOR_GPUS=$NUM_GPUS
    [[ "$MODE" != sft ]] || TRAIN_SCRIPT=train_async.py # as in slime's own SFT scripts: the next step's data is read ahead
fi
[[ $((TRAIN_GPUS % (${TP:-1} * ${CP:-1}))) -eq 0 ]] || die "$TRAIN_GPUS training GPUs cannot be divided by TP x CP = ${TP:-1} x ${CP:-1}"

# ---- slime and its description of the model ----------------------------------------------------------------------------
[[ -f "$SLIME_DIR/$TRAIN_SCRIPT" ]] || die "no slime at SLIME_DIR=$SLIME_DIR: $TRAIN_SCRIPT is missing there"
if [[ "$MODE" == fully-async && ! -f "$SLIME_DIR/slime/rollout/fully_async_rollout.py" ]]; then
    die "MODE=fully-async needs slime v0.3.0 or later: $SLIME_DIR has no slime/rollout/fully_async_rollout.py"
fi
if [[ -z "$MODEL_FILE" ]]; then
    if [[ -f "$HF_CHECKPOINT/config.json" ]]; then
        shape="$(python3 - "$HF_CHECKPOINT/config.json" <<'PY'
import json, sys
whole = json.load(open(sys.argv[1]))
config = whole.get("text_config") or whole
theta = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta") or 0
print(whole.get("model_type"), config.get("hidden_size"), config.get("num_hidden_layers"), int(theta))
PY
)"
        case "$shape" in
            # Two kinds of Qwen3-4B differ in one number only, and slime has a file for each.
            "qwen3 2560 36 5000000") MODEL_FILE=qwen3-4B-Instruct-2507.sh ;;
            "qwen3 2560 36 1000000") MODEL_FILE=qwen3-4B.sh ;;
            "qwen3 4096 36 "*) MODEL_FILE=qwen3-8B.sh ;;
            "qwen3_moe 2048 48 "*) MODEL_FILE=qwen3-30B-A3B.sh ;;
            "qwen3_5 2560 32 "*) MODEL_FILE=qwen3.5-4B.sh ;;
            "qwen3_5 4096 32 "*) MODEL_FILE=qwen3.5-9B.sh ;;
            "glm4_moe_lite 2048 47 "*) MODEL_FILE=glm4.7-30B-A3B.sh ;;
            *) die "$HF_CHECKPOINT is no model that this script knows (model type, width, layers, rope_theta: $shape); name its file in $SLIME_DIR/scripts/models with MODEL_FILE" ;;
        esac
        # Files for several generations of one size take the number from here.
        [[ "$shape" == "qwen3 2560 "* || "$shape" == *" 0" ]] || export MODEL_ARGS_ROTARY_BASE="${shape##* }"
    else
        MODEL_FILE=qwen3-4B-Instruct-2507.sh
        [[ -n "$DRY_RUN" ]] || die "no checkpoint at HF_CHECKPOINT=$HF_CHECKPOINT; fetch it first: hf download Qwen/Qwen3-4B-Instruct-2507 --local-dir $HF_CHECKPOINT"
        note "there is no $HF_CHECKPOINT/config.json: the dry run takes it for a Qwen3-4B of 2507"
    fi
fi
[[ "$MODEL_FILE" == /* ]] || MODEL_FILE="$SLIME_DIR/scripts/models/$MODEL_FILE"
[[ -f "$MODEL_FILE" ]] || die "slime has no $MODEL_FILE (SLIME_DIR=$SLIME_DIR, MODEL_FILE)"
MODEL_ARGS=()
set +u # slime's files are not written for it
# shellcheck source=/dev/null
source "$MODEL_FILE"
set -u
[[ ${#MODEL_ARGS[@]} -gt 0 ]] || die "$MODEL_FILE sets no MODEL_ARGS"

# ---- what one step holds, and how it is divided ------------------------------------------------------------------------
if [[ "$MODE" == sft ]]; then
    # Numbers are numbers and words are words: what a file says must not become a command.
    card="$(python3 - "$SFT_DATA/card.json" 2>/dev/null <<'PY'
import json, sys
card = json.load(open(sys.argv[1]))
numbers = [int(card["steps"]), int(card["global_batch_size"]), int(card["tokens"]["longest"])]
assert card["route"] in ("exact", "messages") and min(numbers) > 0
mask = card.get("loss_mask_type", "-")
assert mask.replace("_", "").isalnum() or mask == "-"
print(card["route"], *numbers, mask)
PY
)" || die "SFT_DATA=$SFT_DATA is not a folder of: tau2-slime export RUN --format slime-sft --output-dir FOLDER"
    read -r SFT_ROUTE NUM_ROLLOUT ROLLOUT_BATCH_SIZE SFT_LONGEST SFT_MASK_TYPE <<<"$card"
    CONTEXT="${CONTEXT:-$SFT_LONGEST}"
fi
if [[ -z "$TP" || -z "$CP" || -z "$EP" || -z "$OFFLOAD" || -z "$CONTEXT" || -z "$ENGINE_GPUS" ]]; then
    chosen="$(python3 "$REPO/benchmarks/memory.py" --choose --gpus "$TRAIN_GPUS" --gpus-per-node "$NUM_GPUS" \
        --micro-batch "$MAX_TOKENS_PER_GPU" ${CONTEXT:+--context "$CONTEXT"} ${TP:+--tp "$TP"} ${CP:+--cp "$CP"} \
        ${EP:+--ep "$EP"} ${OFFLOAD:+--offload "$OFFLOAD"} -- "${MODEL_ARGS[@]}")" || exit 2
    read -r TP CP EP OFFLOAD CONTEXT best_engine <<<"$chosen"
    ENGINE_GPUS="${ENGINE_GPUS:-$best_engine}"
fi
DP=$((TRAIN_GPUS / (TP * CP)))
BATCH=$((ROLLOUT_BATCH_SIZE * SAMPLES_PER_PROMPT))
[[ $((BATCH % DP)) -eq 0 ]] ||
    die "$BATCH episodes of a rollout ($ROLLOUT_BATCH_SIZE x $SAMPLES_PER_PROMPT) cannot be divided among $DP data-parallel ranks ($TRAIN_GPUS GPUs / TP $TP / CP $CP)"
if [[ "$MODE" == sft ]]; then
    [[ "$SFT_LONGEST" -le "$CONTEXT" ]] ||
        die "the longest episode in SFT_DATA=$SFT_DATA has $SFT_LONGEST tokens, CONTEXT=$CONTEXT: export with --max-tokens $CONTEXT, or raise CONTEXT"
else
    [[ "$MAX_RESPONSE_LEN" -lt "$CONTEXT" ]] || die "MAX_RESPONSE_LEN=$MAX_RESPONSE_LEN (a turn) must be less than CONTEXT=$CONTEXT (an episode)"
    SAMPLING_GPUS=$([[ "$MODE" == fully-async ]] && echo $((ALL_GPUS - TRAIN_GPUS)) || echo "$ALL_GPUS")
    [[ $((SAMPLING_GPUS % ENGINE_GPUS)) -eq 0 ]] || die "$SAMPLING_GPUS sampling GPUs cannot be divided into engines of ENGINE_GPUS=$ENGINE_GPUS"
fi

# ---- the command -------------------------------------------------------------------------------------------------------
CLUSTER_ARGS=(--actor-num-nodes "$ACTOR_NODES" --actor-num-gpus-per-node "$ACTOR_GPUS" --num-gpus-per-node "$NUM_GPUS")
CKPT_ARGS=(
    --hf-checkpoint "$HF_CHECKPOINT"
    --ref-load "$TORCH_DIST"         # where the weights come from at the first start
    --load "$RUN_DIR/checkpoints"    # and at every later one
    --save "$RUN_DIR/checkpoints"
    --save-interval "$SAVE_INTERVAL"
)
# slime numbers checkpoints from 0, so none is a multiple of the interval, and Megatron keeps only the newest.
[[ "$KEEP_CHECKPOINTS" == all ]] || CKPT_ARGS+=(--save-retain-interval "$SAVE_INTERVAL")
if [[ "$MODE" == sft ]]; then
    ROLLOUT_ARGS=(
        --num-rollout "$NUM_ROLLOUT"
        --rollout-batch-size "$ROLLOUT_BATCH_SIZE"
        --global-batch-size "$BATCH"
        --balance-data
        --loss-type sft_loss
        --calculate-per-token-loss
        --disable-compute-advantages-and-returns
        --debug-train-only # no engine: every GPU trains
    )
    case "$SFT_ROUTE" in
        exact) ROLLOUT_ARGS+=(--load-debug-rollout-data "$SFT_DATA/{rollout_id}.pt") ;; # the episodes' own tokens, a file a step
        messages)
            ROLLOUT_ARGS+=(
                --rollout-function-path slime.rollout.sft_rollout.generate_rollout
                --prompt-data "$SFT_DATA/messages.jsonl"
                --input-key messages
                --tool-key tools
                --loss-mask-type "$SFT_MASK_TYPE"
                --rollout-shuffle
            )
            ;;
    esac
    SERVER_ARGS=()
else
    ROLLOUT_ARGS=(
        --custom-generate-function-path tau2_slime.generate_with_tau2.generate
        --prompt-data "$PROMPT_DATA"
        --input-key prompt
        --metadata-key metadata
        --rollout-shuffle
        --num-rollout "$NUM_ROLLOUT"
        --rollout-batch-size "$ROLLOUT_BATCH_SIZE"
        --n-samples-per-prompt "$SAMPLES_PER_PROMPT"
        --global-batch-size "$BATCH"
        --rollout-temperature 1
        --rollout-max-response-len "$MAX_RESPONSE_LEN"
        --rollout-max-context-len "$CONTEXT"
        --balance-data
    )
    [[ -z "$TAU2_CONFIG" ]] || ROLLOUT_ARGS+=(--custom-config-path "$TAU2_CONFIG")
    SERVER_ARGS=(--rollout-num-gpus-per-engine "$ENGINE_GPUS" --sglang-mem-fraction-static 0.7)
fi
case "$MODE" in
    sync | partial)
        CLUSTER_ARGS+=(--colocate)
        ROLLOUT_ARGS+=(
            --over-sampling-batch-size "$OVER_SAMPLING"
            --dynamic-sampling-filter-path tau2_slime.hooks.keep_informative_groups
        )
        if [[ "$MODE" == partial ]]; then
            ROLLOUT_ARGS+=(--partial-rollout)
            [[ "$MASK_OFFPOLICY" != 1 ]] || ROLLOUT_ARGS+=(--mask-offpolicy-in-partial-rollout)
        fi
        ;;
    fully-async)
        CLUSTER_ARGS+=(--rollout-num-gpus $((ALL_GPUS - TRAIN_GPUS)))
        ROLLOUT_ARGS+=(--rollout-function-path slime.rollout.fully_async_rollout.generate_rollout_fully_async)
        SERVER_CONCURRENCY="${SERVER_CONCURRENCY:-16}" # slime's 512 would let it run hundreds of groups ahead
        ;;
esac
[[ -z "$SERVER_CONCURRENCY" || "$MODE" == sft ]] || SERVER_ARGS+=(--sglang-server-concurrency "$SERVER_CONCURRENCY")
EVAL_ARGS=()
if [[ "$EVAL_INTERVAL" -gt 0 ]]; then
    EVAL_ARGS=(--eval-config "$EVAL_CONFIG" --eval-interval "$EVAL_INTERVAL")
    # slime's own evaluation and the fully-async worker would wait for one semaphore in two event loops.
    [[ "$MODE" != fully-async ]] || EVAL_ARGS+=(--eval-function-path tau2_slime.eval_rollout.generate_rollout)
fi
GRPO_ARGS=(
    --advantage-estimator grpo
    --custom-reward-post-process-path tau2_slime.hooks.post_process_rewards
    --eps-clip 0.2
    --eps-clip-high 0.28
    --entropy-coef 0.0
    --use-tis # the sampler's log-probs are exact: correct for their difference to the trainer's
)
OPTIMIZER_ARGS=(--optimizer adam --lr "${LEARNING_RATE:-1e-6}" --lr-decay-style constant --weight-decay 0.1 --adam-beta1 0.9 --adam-beta2 0.98)
if [[ "$MODE" == sft ]]; then
    GRPO_ARGS=()
    LEARNING_RATE="${LEARNING_RATE:-1e-5}"
    OPTIMIZER_ARGS=(
        --optimizer adam
        --lr "$LEARNING_RATE"
        --min-lr "$(python3 -c 'import sys; print(f"{float(sys.argv[1]) / 10:g}")' "$LEARNING_RATE")"
        --lr-decay-style cosine
        --lr-warmup-fraction 0.1
        --weight-decay 0.1
        --adam-beta1 0.9
        --adam-beta2 0.95
    )
fi
# Where the GPUs cannot hold 18 bytes per parameter, the optimizer's 12 go to the host's memory.
[[ "$OFFLOAD" -eq 0 ]] || OPTIMIZER_ARGS+=(--optimizer-cpu-offload --overlap-cpu-optimizer-d2h-h2d --use-precision-aware-optimizer)
PARALLEL_ARGS=(
    --tensor-model-parallel-size "$TP"
    --pipeline-model-parallel-size 1
    --context-parallel-size "$CP"
    --recompute-granularity full
    --recompute-method uniform
    --recompute-num-layers 1
    --use-dynamic-batch-size
    --max-tokens-per-gpu "$MAX_TOKENS_PER_GPU"
    --attention-dropout 0.0
    --hidden-dropout 0.0
    --accumulate-allreduce-grads-in-fp32
    --attention-softmax-in-fp32
    --attention-backend flash
)
[[ "$TP" -eq 1 ]] || PARALLEL_ARGS+=(--sequence-parallel)
[[ "$EP" -eq 1 ]] || PARALLEL_ARGS+=(--expert-model-parallel-size "$EP" --expert-tensor-parallel-size 1)
LOG_ARGS=()
[[ "$MODE" == sft ]] || LOG_ARGS=(
    --custom-rollout-log-function-path tau2_slime.hooks.log_train_rollout
    --custom-eval-rollout-log-function-path tau2_slime.hooks.log_eval_rollout
)
if [[ -n "$WANDB_PROJECT" ]]; then
    LOG_ARGS+=(--use-wandb --wandb-project "$WANDB_PROJECT" --wandb-group "$WANDB_GROUP")
else
    LOG_ARGS+=(--use-tensorboard)
    export TENSORBOARD_DIR="${TENSORBOARD_DIR:-$RUN_DIR/tensorboard}"
fi

export PYTHONPATH="$MEGATRON_DIR:$SLIME_DIR:$REPO${PYTHONPATH:+:$PYTHONPATH}"
export CUDA_DEVICE_MAX_CONNECTIONS=1 # Megatron requires it
if [[ -z "${NCCL_NVLS_ENABLE:-}" ]]; then
    NCCL_NVLS_ENABLE=0
    if command -v nvidia-smi >/dev/null && [[ "$(nvidia-smi topo -m 2>/dev/null || true)" =~ NV[0-9] ]]; then NCCL_NVLS_ENABLE=1; fi
    export NCCL_NVLS_ENABLE
fi
# The variables of every worker on every node. No keys among them: Ray's dashboard shows a job's runtime environment.
RUNTIME_ENV="$(python3 - "$REPO/tau2_slime/config/settings.py" <<'PY'
import ast, json, os, sys
names = ["PYTHONPATH", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_NVLS_ENABLE", "DATA_DIR", "TENSORBOARD_DIR"]
# Of the TAU2_* variables only those that are settings: another one may be a secret of somebody else.
classes = [node for node in ast.parse(open(sys.argv[1], encoding="utf-8").read()).body if isinstance(node, ast.ClassDef)]
fields = next(node for node in classes if node.name == "Tau2Config").body
known = {"TAU2_" + node.target.id.upper() for node in fields if isinstance(node, ast.AnnAssign)}
known |= {"TAU2_DATA_DIR", "TAU2_DATA_ROOT", "TAU2_LOG_LEVEL", "TAU2_SLIME_GC"}
names += sorted(known & os.environ.keys())
unknown = sorted(name for name in os.environ.keys() - known - {"TAU2_CONFIG"} if name.startswith("TAU2_"))
if unknown:
    print("# not handed to the job, since these are no settings:", ", ".join(unknown), file=sys.stderr)
print(json.dumps({"env_vars": {name: os.environ[name] for name in names if name in os.environ}}))
PY
)"

DOCTOR=(
    python3 -m tau2_slime.cli doctor --hf-checkpoint "$HF_CHECKPOINT" --torch-dist "$TORCH_DIST" --slime-dir "$SLIME_DIR"
    --max-context-len "$CONTEXT"
)
if [[ "$MODE" == sft ]]; then DOCTOR+=(--sft-data "$SFT_DATA"); else DOCTOR+=(--prompt-data "$PROMPT_DATA"); fi
[[ -n "$RAY_ADDRESS" ]] || DOCTOR+=(--gpus "$NUM_GPUS")
[[ "$EVAL_INTERVAL" -eq 0 ]] || DOCTOR+=(--eval-config "$EVAL_CONFIG")
[[ -z "$TAU2_CONFIG" ]] || DOCTOR+=(--config "$TAU2_CONFIG")
[[ "$CALL_USER_MODELS" == 1 && "$ROLE" == head ]] || DOCTOR+=(--no-user-calls)
if [[ "$ROLE" == join ]]; then
    RAY_START=(ray start --address "$HEAD_ADDRESS:$RAY_PORT" --num-gpus "$NUM_GPUS" --disable-usage-stats --block)
else
    RAY_START=(ray start --head --node-ip-address "$HEAD_ADDRESS" --port "$RAY_PORT" --num-gpus "$NUM_GPUS"
        --disable-usage-stats --dashboard-port "$DASHBOARD_PORT")
fi
SUBMIT=(
    ray job submit --address "${RAY_ADDRESS:-http://127.0.0.1:$DASHBOARD_PORT}" --runtime-env-json "$RUNTIME_ENV" --
    python3 "$SLIME_DIR/$TRAIN_SCRIPT"
    "${CLUSTER_ARGS[@]}" "${MODEL_ARGS[@]}" "${CKPT_ARGS[@]}" "${ROLLOUT_ARGS[@]}" ${EVAL_ARGS[@]+"${EVAL_ARGS[@]}"}
    ${GRPO_ARGS[@]+"${GRPO_ARGS[@]}"} "${OPTIMIZER_ARGS[@]}" "${PARALLEL_ARGS[@]}" ${SERVER_ARGS[@]+"${SERVER_ARGS[@]}"}
    ${LOG_ARGS[@]+"${LOG_ARGS[@]}"}
    ${EXTRA[@]+"${EXTRA[@]}"}
)

# One option a line, ready to be pasted into a shell.
show() {
    local word line=""
    for word in "$@"; do
        [[ "$word" != --* || -z "$line" ]] || line+=$' \\\n   '
        if [[ "$word" == *[\ \"]* && "$word" != *\'* ]]; then word="'$word'"; else printf -v word '%q' "$word"; fi
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}
describe() {
    local division="TP $TP, CP $CP, DP $DP$([[ "$EP" -eq 1 ]] || echo ", EP $EP")$([[ "$OFFLOAD" -eq 0 ]] || echo ", Adam in the host's memory")"
    if [[ "$MODE" == sft ]]; then
        note "sft on $NUM_NODES x $NUM_GPUS GPUs ($division)"
        note "$NUM_ROLLOUT steps of $BATCH episodes of at most $SFT_LONGEST tokens from $SFT_DATA ($SFT_ROUTE); it starts from $TORCH_DIST"
    else
        note "$MODE on $NUM_NODES x $NUM_GPUS GPUs: $TRAIN_GPUS train ($division), $([[ "$MODE" == fully-async ]] && echo "$SAMPLING_GPUS" || echo "the same") sample"
        note "a rollout: $ROLLOUT_BATCH_SIZE tasks x $SAMPLES_PER_PROMPT episodes of at most $CONTEXT tokens; user simulator: ${TAU2_USER_MODEL_ROTATION:-${TAU2_USER_MODEL:-see $TAU2_CONFIG}}"
    fi
    note "model: $HF_CHECKPOINT with $(basename "$MODEL_FILE"); results: $RUN_DIR"
}

if [[ -n "$DRY_RUN" ]]; then
    describe
    note "a dry run: nothing is started. The checks:"
    show "${DOCTOR[@]}" >&2
    if [[ -z "$RAY_ADDRESS" ]]; then
        note "then Ray:"
        show "${RAY_START[@]}" >&2
    fi
    if [[ "$ROLE" == head ]]; then
        note "then the training job:"
        show "${SUBMIT[@]}"
    fi
    exit 0
fi

# ---- checks ------------------------------------------------------------------------------------------------------------
command -v ray >/dev/null || die "the command 'ray' is not found: run this inside slime's container"
if [[ -z "$RAY_ADDRESS" ]] && ray status >/dev/null 2>&1; then
    die "Ray is already running on this machine. If it is a job of yours that ended, 'ray stop' ends it; to train on that cluster, set RAY_ADDRESS=http://HOST:8265"
fi
if ! "${DOCTOR[@]}"; then
    cat >&2 <<HELP
run_qwen3_4B.sh: nothing was started. These commands make what may be missing, once and for all runs:
  the checkpoint     hf download Qwen/Qwen3-4B-Instruct-2507 --local-dir $HF_CHECKPOINT
  its conversion     cd $SLIME_DIR && source $MODEL_FILE && PYTHONPATH=$MEGATRON_DIR python3 tools/convert_hf_to_torch_dist.py \\
                         "\${MODEL_ARGS[@]}" --hf-checkpoint $HF_CHECKPOINT --save $TORCH_DIST
  the start          TORCH_DIST may also be the checkpoints folder of an earlier stage, such as runs/sft/checkpoints
  the data           python3 $REPO/data_prep/prepare_tau2_data.py --output_dir $DATA_DIR --multi-domain-train retail telecom
HELP
    exit 2
fi
if [[ "$ROLE" == join ]]; then
    note "joining $HEAD_ADDRESS:$RAY_PORT; this command stays in the foreground, Ctrl-C leaves the cluster"
    exec "${RAY_START[@]}"
fi

# ---- start -------------------------------------------------------------------------------------------------------------
mkdir -p "$RUN_DIR/checkpoints"
show "${SUBMIT[@]}" >"$RUN_DIR/command-$(date +%Y%m%d-%H%M%S).sh"
describe
if [[ -f "$RUN_DIR/checkpoints/latest_checkpointed_iteration.txt" ]]; then
    note "continues after rollout $(<"$RUN_DIR/checkpoints/latest_checkpointed_iteration.txt") of $RUN_DIR/checkpoints"
fi
if [[ -z "$RAY_ADDRESS" ]]; then
    export PYTHONUNBUFFERED=1
    trap 'ray stop >/dev/null' EXIT # the checks above made sure that only this script's Ray runs here
    "${RAY_START[@]}"
    if [[ "$NUM_NODES" -gt 1 ]]; then
        note "waiting for $((NUM_NODES - 1)) more nodes; on each: HEAD_ADDRESS=$HEAD_ADDRESS NUM_NODES=$NUM_NODES bash $REPO/scripts/run_qwen3_4B.sh join"
        python3 - "$ALL_GPUS" "$JOIN_TIMEOUT" "$HEAD_ADDRESS:$RAY_PORT" <<'PY' || die "not all nodes came within JOIN_TIMEOUT=$JOIN_TIMEOUT seconds"
import sys, time
import ray
wanted, patience, address = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
started = time.monotonic()
while (there := int(ray.cluster_resources().get("GPU", 0))) < wanted and time.monotonic() - started < patience:
    time.sleep(2)
print(f"# {there} of {wanted} GPUs in the cluster", file=sys.stderr)
sys.exit(there < wanted)
PY
    fi
fi
"${SUBMIT[@]}"
