#!/bin/bash
# Tests a training on a Slurm cluster of one node (not part of pytest). The training is preempted and queued again, one
# of its ranks is killed, and it must end with the same weights as a training without interruption. The script needs
# root on Debian. It installs slurm-wlm and munge, and stops all daemons at its end.
#
#     tests/slurm.sh PYTHON        # a Python with the extra slurm (pip install -e '.[slurm]'); takes some minutes
set -euo pipefail

PYTHON=$(realpath -s "${1:?name a Python with the extra slurm}")
TESTS=$(dirname "$(realpath "$0")")
export PYTHONPATH=$(dirname "$TESTS"):$TESTS OMP_NUM_THREADS=1
LAB=$(mktemp -d /tmp/slurm.XXXXXX)
TRAIN=(step=train "data.root=$LAB/shards" init=embedded step.trunk_lr=0 step.batch=4 step.epochs=12 step.save_minutes=0)
TRAIN+=(step.workers=0)
STARTED=()

# print_step WORDS: prints the seconds since the start, and WORDS
print_step() { printf '%4d s  %s\n' $SECONDS "$*"; }

fail() {
    print_step "FAILED: $*"
    tail -n 20 "$LAB"/*.log "$LAB"/preempted/.submitit/*/*_log.* 2>/dev/null || true
    exit 1
}

finish() {
    set +e
    scancel --me && sleep 8  # longer than KillWait
    for ((i = ${#STARTED[@]} - 1; i >= 0; i--)); do
        kill "${STARTED[i]}" && wait "${STARTED[i]}"
    done
    rm -rf "$LAB"
} 2>/dev/null
trap finish EXIT

# reach SECONDS WHAT COMMAND...: repeats COMMAND until it succeeds; fails after SECONDS
reach() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "no $what in time"
        sleep 0.2
    done
    print_step "$what"
}

# start LOG COMMAND...: runs COMMAND in the background until the script ends
start() {
    local log=$1
    shift
    "$@" >"$LAB/$log.log" 2>&1 &
    STARTED+=($!)
}

install() {
    command -v slurmctld slurmd munged && return
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends slurm-wlm munge
}

configure() {
    mkdir -m 711 "$LAB/munge" "$LAB/state" "$LAB/spool"
    chmod 711 "$LAB"  # munged requires that every user can reach its socket
    head -c 1024 /dev/urandom >"$LAB/munge/key"
    chmod 600 "$LAB/munge/key"
    export SLURM_CONF=$LAB/slurm.conf
    cat >"$SLURM_CONF" <<END
ClusterName=lab
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthInfo=socket=$LAB/munge/socket
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool
SlurmctldPidFile=$LAB/slurmctld.pid
SlurmdPidFile=$LAB/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=5
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

serve() {
    start munged munged --foreground --key-file="$LAB/munge/key" --socket="$LAB/munge/socket" --pid-file="$LAB/munge/pid" \
        --log-file="$LAB/munge/log" --seed-file="$LAB/munge/seed"
    reach 20 "munged" test -S "$LAB/munge/socket"
    start slurmctld slurmctld -D
    start slurmd slurmd -D
    reach 60 "an idle node" sh -c 'sinfo --noheader --format=%T | grep -qx idle'
}

requeued() { squeue --noheader --format=%T | grep -qx PENDING && scontrol update JobId="$JOB" StartTime=now; }
checkpoint_of() { ls "$1"/checkpoints/step-*.safetensors; }
# logged TIMES WORDS: succeeds if at least TIMES lines of the ranks' log contain WORDS
logged() { (($(grep -c "$2" "$LAB/preempted/0/train.log") >= $1)); }
ended() { ! kill -0 "${STARTED[-1]}"; }

install >"$LAB/apt.log" 2>&1 || fail "apt-get"
configure
serve
"$PYTHON" -c "import sys, pathlib, made_shards; made_shards.make_shards(pathlib.Path(sys.argv[1]))" "$LAB/shards"
cd "$LAB"

srun -n 2 "$PYTHON" -m grounding "${TRAIN[@]}" "hydra.run.dir=$LAB/whole" >whole.log 2>&1 || fail "the training by srun"
print_step "trained without interruption, by srun alone"

start preempted "$PYTHON" -m grounding cluster=slurm "${TRAIN[@]}" "hydra.sweep.dir=$LAB/preempted" \
    hydra.launcher.tasks_per_node=2 hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=1
reach 100 "submitted, and the first checkpoint is there" checkpoint_of preempted/0
JOB=$(squeue --noheader --format=%i)
scancel --signal=USR2 "$JOB"
reach 60 "preempted by a signal, and saved" logged 2 "received a signal"
reach 60 "requeued" requeued  # Slurm would wait two minutes
reach 100 "resumed" logged 2 "resumed after step"
reach 100 "and some steps further" logged 1 "step 6:"

kill -KILL "$(scontrol listpids "$JOB" | awk '$5 == 1 {print $1; exit}')"
print_step "killed the second rank"
reach 100 "restarted and resumed" logged 4 "resumed after step"

reach 150 "ended" ended
wait "${STARTED[-1]}" || fail "the job ended with an error"
"$PYTHON" -c "
from safetensors.torch import load_file
a, b = (load_file(f'{run}/tagger.safetensors') for run in ('whole', 'preempted/0'))
assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)" || fail "the weights differ from those without interruption"
print_step "the weights equal those of the training without interruption"
grep -h "received a signal\|resumed after" preempted/0/train.log | sort | uniq -c
echo OK
