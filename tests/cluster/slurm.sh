#!/usr/bin/env bash
# A real Slurm of one node on loopback, for trying job scripts: munged, slurmctld and slurmd of Debian's packages.
#
#   eval "$(tests/cluster/slurm.sh up FOLDER)"    install what is missing (as root), start; prints: export SLURM_CONF=...
#   tests/cluster/slurm.sh status FOLDER          what runs, and the queue
#   tests/cluster/slurm.sh down FOLDER            end all jobs and the three daemons
#
# FOLDER, /tmp/splitbrain-slurm by default, holds everything: configuration, keys, state, logs. Nothing in /etc is read
# or changed. SLURM_CPUS: processors that the node claims (4), SLURM_PORT: of the controller, slurmd takes the next (26817).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

action=${1:-}
folder=$(realpath -m "${2:-/tmp/splitbrain-slurm}")
cpus=${SLURM_CPUS:-4} port=${SLURM_PORT:-26817}
daemons=(slurmd slurmctld munged) # in the order of their end
packages=(munge slurmctld slurmd slurm-client)
export SLURM_CONF=$folder/slurm.conf

fail() {
    echo "slurm.sh: $*" >&2
    [[ -z ${started:-} ]] || down
    [[ $action != up ]] || echo false # so that eval fails, too
    exit 1
}

# Slurm's commands wait for ever where the controller does not answer.
limited() { timeout --kill-after=5 20 "$@"; }

# Process number of a daemon of this folder, if it lives.
pid_of() {
    local pid
    pid=$(cat "$folder/run/$1.pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "$1 .*$folder/" && echo "$pid"
}

node_state() { limited sinfo --noheader --format=%T 2>/dev/null | head -n1; }

install_packages() {
    local tool
    for tool in munged mungekey unmunge slurmctld slurmd sbatch scontrol; do
        command -v "$tool" >/dev/null || break
        tool=
    done
    [[ -n $tool ]] || return 0
    [[ $(id -u) == 0 ]] || fail "cannot be installed: $tool is missing and only root may install it (apt-get install ${packages[*]})"
    command -v apt-get >/dev/null || fail "cannot be installed: $tool is missing and there is no apt-get"
    {
        timeout 120 apt-get update &&
            DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "${packages[@]}"
    } </dev/null >"$folder/log/install.log" 2>&1 || fail "cannot be installed: apt-get failed, see $folder/log/install.log"
}

write_configuration() {
    cat >"$SLURM_CONF" <<END
ClusterName=splitbrain
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
# Both listen on what the machine's name resolves to, which 'up' has seen to be 127.0.0.1.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A job that is put back waits for cred_expire and a second; less than 5 would mean 120.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
# No control groups, no accounts, no MPI.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Looks at the queue at once and every second; the defaults are meant for thousands of jobs.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
JobRequeue=1
KillWait=30
MinJobAge=86400
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
END
}

# Without this script's environment and files: daemons outlive it.
launch() { env -i PATH="$PATH" HOME=/ LANG=C.UTF-8 SLURM_CONF="$SLURM_CONF" "$@" </dev/null >>"$folder/log/start.log" 2>&1; }

wait_for() { # seconds, words, command...
    local end=$((SECONDS + $1)) words=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "$words; logs are in $folder/log"
        sleep 0.1
    done
}

authenticates() { munge -S "$folder/munge/socket" -n | unmunge -S "$folder/munge/socket"; }
is_idle() { [[ $(node_state) == idle ]]; }

up() {
    local name
    name=$(uname -n)
    [[ $(getent ahostsv4 "$name" | awk 'NR == 1 {print $1}') == 127.0.0.1 ]] ||
        fail "cannot listen on loopback: this machine's name, $name, is not 127.0.0.1. Put '127.0.0.1 $name' first into /etc/hosts"
    ((${#folder} < 80)) || fail "$folder: too long a path for sockets, choose another folder"
    ! pid_of slurmctld >/dev/null || fail "runs already in $folder: tests/cluster/slurm.sh down $folder"
    mkdir -p "$folder"/{log,munge,run,spool,state}
    install_packages
    chmod 755 "$folder"
    chmod 711 "$folder/munge"
    [[ -e $folder/munge/key ]] || mungekey --create --keyfile="$folder/munge/key"
    write_configuration
    started=1
    launch munged --socket="$folder/munge/socket" --key-file="$folder/munge/key" --pid-file="$folder/run/munged.pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed" --num-threads=2 || fail "munged does not start, see $folder/log"
    wait_for 10 "munged does not answer" authenticates
    launch slurmctld -c -f "$SLURM_CONF" || fail "slurmctld does not start, see $folder/log"
    launch slurmd -f "$SLURM_CONF" || fail "slurmd does not start, see $folder/log"
    wait_for 30 "the node does not come up" is_idle
    echo "export SLURM_CONF=$SLURM_CONF"
}

status() {
    local daemon
    for daemon in "${daemons[@]}"; do echo "$daemon: $(pid_of "$daemon" || echo "does not run")"; done
    pid_of slurmctld >/dev/null || exit 3
    limited sinfo
    limited squeue
}

# Processes that a job of this cluster left: their environment says so.
job_pids() {
    local file
    for file in /proc/[0-9]*/environ; do
        tr '\0' '\n' 2>/dev/null <"$file" | grep -qx "SLURM_CONF=$SLURM_CONF" &&
            tr '\0' '\n' 2>/dev/null <"$file" | grep -q '^SLURM_JOB_ID=' && basename "$(dirname "$file")"
    done
    true
}

end_jobs() {
    local pid jobs
    jobs=
    # Without a controller nobody answers, and processes are what is left of jobs.
    ! pid_of slurmctld >/dev/null || jobs=$(limited squeue --noheader --format=%A 2>/dev/null | sort -u | tr '\n' ' ') || true
    # shellcheck disable=SC2086 # one argument a job
    [[ -z ${jobs// /} ]] || limited scancel $jobs || true
    for _ in {1..20}; do
        [[ -n $(job_pids) ]] || return 0
        sleep 0.1
    done
    for pid in $(job_pids); do kill -KILL "$pid" 2>/dev/null || true; done
}

down() {
    local daemon pid
    end_jobs
    for daemon in "${daemons[@]}"; do
        pid=$(pid_of "$daemon") || continue
        kill "$pid"
        for _ in {1..100}; do
            pid_of "$daemon" >/dev/null || continue 2
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    done
}

case $action in
    up | status | down) "$action" ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
