#!/usr/bin/env bash
# A real Slurm of one node on the loopback interface, for the tests of `im_pipeline.py -e slurm`. Needs root and Debian's
# packages slurm-wlm and munge.
#     eval "$(tests/local_slurm.sh start FOLDER)"     keeps its state and its log files in FOLDER, prints the setting to evaluate
#     MAX_ARRAY_SIZE=5 in the environment of start    one more than the highest index of an array (else 1001)
#     tests/local_slurm.sh stop FOLDER                stops the daemons that start started, by their process ids
set -euo pipefail

die() {
    echo "local_slurm.sh: $*" >&2
    exit 1
}

is_alive() { # is_alive PIDFILE
    [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

start() {
    local folder=$1 host port
    [ "$(id -u)" = 0 ] || die "needs root"
    for program in slurmctld slurmd sbatch munged; do
        command -v "$program" >/dev/null || die "there is no '$program' here (Debian: apt install slurm-wlm munge)"
    done
    host=$(hostname)
    port=$((20000 + $$ % 20000))
    mkdir -p "$folder/state" "$folder/spool" /run/munge /var/log/munge
    chown -R munge /run/munge /var/log/munge /etc/munge /var/lib/munge
    if ! munge -n >/dev/null 2>&1; then su -s /bin/sh munge -c "$(command -v munged)" >&2; fi
    cat >"$folder/slurm.conf" <<CONF
ClusterName=local
MaxArraySize=${MAX_ARRAY_SIZE:-1001}
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=$port
SlurmdPort=$((port + 1))
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
KillWait=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF="$folder/slurm.conf"
    is_alive "$folder/slurmctld.pid" || slurmctld >&2
    is_alive "$folder/slurmd.pid" || slurmd >&2
    for _ in $(seq 60); do
        if sinfo -h -t idle,mixed,alloc -o %D 2>/dev/null | grep -q 1; then
            echo "export SLURM_CONF=$folder/slurm.conf"
            return
        fi
        sleep 0.5
    done
    die "the node does not come up; see $folder/slurmctld.log and $folder/slurmd.log"
}

stop() {
    export SLURM_CONF="$1/slurm.conf"
    scancel --user="$(id -un)" || true
    for _ in $(seq 20); do # a step that has not told its end yet would wait for the daemons
        if sinfo -h -t idle -o %D | grep -q 1; then break; fi
        sleep 0.5
    done
    for name in slurmd slurmctld; do
        if is_alive "$1/$name.pid"; then kill "$(cat "$1/$name.pid")"; fi
    done
}

case "${1:-}" in
start | stop) "$1" "$(mkdir -p "${2:?a folder is missing}" && cd "$2" && pwd)" ;;
*) die "expected 'start FOLDER' or 'stop FOLDER'" ;;
esac
