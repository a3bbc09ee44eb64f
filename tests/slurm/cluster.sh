#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for the tests and for trying the profile by hand.
#
#   cluster.sh up       installs what is missing, starts every daemon, waits until the node takes jobs
#   cluster.sh down     cancels the jobs that are left and stops every daemon
#   cluster.sh status   shows which daemons run, and what the node does; fails if one is missing
#
# Partitions cpu and gpu, both of the one node; account test; --qos=urgent, whose jobs send others back to the queue.
# munged and mariadbd run with the cluster's own key and database, next to any that the machine already runs.
#
# Non-obvious behaviours
# * The configuration must be in /etc/slurm, because jobs that Snakemake submits have lost $SLURM_CONF. It is there only
#   while the cluster is up: if the SLURM plugin is installed, Snakemake asks the controller for its settings at every
#   start, whatever the executor. If a controller is configured and does not answer, it waits nine seconds.
# * The node claims more CPUs and memory than the machine has, so that full-scale jobs get what they ask for. It also
#   claims two GPUs. Any two character devices will do for them, because a job sees only their number.
# * There are no cgroups. Memory is sampled, so a job is killed some seconds after it exceeds its request, and its state
#   is FAILED. On a cluster with cgroups it is OUT_OF_MEMORY.
# * Processes are tracked by their group. If tracked by parentage (linuxproc), those whose batch shell died first would
#   live on.
# * Time limits, and signals before them, are checked every 30 seconds, and are whole minutes.
# * A job that goes back to the queue starts again only after the credential of its first start expires (cred_expire).
set -euo pipefail
umask 022
export PATH=$PATH:/usr/sbin:/sbin

readonly self=$(realpath "${BASH_SOURCE[0]}")
readonly etc=/etc/slurm state=/var/lib/slurm-loopback logs=/var/log/slurm-loopback
readonly mark="# Written by tests/slurm/cluster.sh, which removes it again."
readonly packages=(slurmctld slurmd slurmdbd slurm-client munge mariadb-server)
readonly daemons=(munged mariadbd slurmdbd slurmctld slurmd)
readonly cpus=32 memory_mb=512000

say() { printf 'slurm: %s\n' "$*"; }
fail() { printf 'slurm: error: %s\n' "$*" >&2; exit 1; }

# ---- installation ---------------------------------------------------------------------------------------------------

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

forbid_services() {  # or else installing a package starts its daemons, with no configuration or another one
  local policy=/usr/sbin/policy-rc.d
  [[ ! -e $policy ]] || return 0
  trap "rm -f $policy" EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || fail "no apt here; install the equivalents of: ${missing[*]}"
  say "installing ${missing[*]}"
  forbid_services
  apt-get update >>"$logs/apt.log" 2>&1 || say "warning: apt-get update did not reach every archive ($logs/apt.log)"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >>"$logs/apt.log" 2>&1 ||
    { tail -n 15 "$logs/apt.log" >&2; fail "apt-get install ${missing[*]} failed (its full output: $logs/apt.log)"; }
}

# ---- configuration --------------------------------------------------------------------------------------------------

is_ours() { grep -qxF "$mark" "$etc/slurm.conf" 2>/dev/null; }

write_configuration() {
  [[ ! -e $etc/slurm.conf ]] || is_ours || fail "$etc/slurm.conf belongs to another cluster and is left alone"
  mkdir -p "$etc" "$state"/{ctld,slurmd,run}
  ln -sfn /dev/null "$state/gpu0"
  ln -sfn /dev/zero "$state/gpu1"
  local host loopback_only=
  host=$(hostname -s)
  # SLURM can listen only on the address of the host's name, or on all. Every request needs munged's key anyway.
  [[ $(getent ahostsv4 "$host") != 127.0.0.1\ * ]] || loopback_only=CommunicationParameters=NoCtldInAddrAny,NoInAddrAny

  cat >"$etc/slurm.conf" <<CONF
$mark
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/run/munge.socket,cred_expire=10
$loopback_only

StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/slurmd
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmdPidFile=$state/run/slurmd.pid
SlurmctldLogFile=$logs/slurmctld.log
SlurmdLogFile=$logs/slurmd.log

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass=$state/run/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment

ProctrackType=proctrack/pgid
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=200
PreemptType=preempt/qos
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=1

SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=loopback NodeHostname=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory_mb Gres=gpu:2
PartitionName=cpu Nodes=loopback Default=YES
PartitionName=gpu Nodes=loopback
CONF

  # No cgroups are used, but a newer slurmd loads the plugin anyway, and the one for version 2 asks systemd for a scope.
  echo CgroupPlugin=cgroup/v1 >"$etc/cgroup.conf"

  cat >"$etc/gres.conf" <<CONF
AutoDetect=off
Name=gpu File=$state/gpu[0-1]
CONF

  (umask 077; cat >"$etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$state/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
$loopback_only
SlurmUser=root
StorageType=accounting_storage/mysql
StorageUser=root
PidFile=$state/run/slurmdbd.pid
LogFile=$logs/slurmdbd.log
CONF
}

# ---- daemons --------------------------------------------------------------------------------------------------------

is_running() { grep -qs "$1" "/proc/$2/cmdline"; }  # DAEMON PID; a zombie has no command line

pid_of() {  # DAEMON: its process id, if it runs
  local pid
  pid=$(cat "$state/run/$1.pid" 2>/dev/null) && is_running "$1" "$pid" && echo "$pid"
}

give_up() {  # DAEMON WHY
  tail -n 20 "$logs/$1.log" >&2
  fail "$1 $2 (its full log: $logs/$1.log)"
}

await() {  # SECONDS DAEMON COMMAND...: until the command succeeds
  local limit=$((SECONDS + $1)) daemon=$2
  shift 2
  until "$@" &>/dev/null; do
    ((SECONDS < limit)) || give_up "$daemon" "is not ready: $*"
    sleep 0.2
  done
}

start_munged() {
  [[ -e $state/munge.key ]] || (umask 077; head -c 1024 /dev/urandom >"$state/munge.key")
  munged --key-file="$state/munge.key" --socket="$state/run/munge.socket" --pid-file="$state/run/munged.pid" \
    --log-file="$logs/munged.log" --seed-file="$state/munge.seed"
}

start_mariadbd() {
  [[ -d $state/mysql/mysql ]] || mariadb-install-db --no-defaults --user=root --datadir="$state/mysql" \
    --auth-root-authentication-method=socket --skip-test-db >>"$logs/mariadbd.log" 2>&1
  setsid mariadbd --no-defaults --user=root --datadir="$state/mysql" --socket="$state/run/mariadb.socket" \
    --skip-networking >>"$logs/mariadbd.log" 2>&1 </dev/null &
  echo $! >"$state/run/mariadbd.pid"
  await 60 mariadbd mariadb-admin --no-defaults --socket="$state/run/mariadb.socket" ping
}

start_slurmdbd() {
  MYSQL_UNIX_PORT=$state/run/mariadb.socket slurmdbd
  await 60 slurmdbd sacctmgr -n show cluster
}

start_slurmctld() {
  add_account
  slurmctld
}

start_slurmd() { slurmd; }

add_account() {  # for root and for whoever called sudo; it is no error if they exist already
  local user
  sacctmgr -i add cluster loopback >/dev/null || true
  sacctmgr -i add qos urgent preempt=normal >/dev/null || true
  sacctmgr -i add account test >/dev/null || true
  for user in root "${SUDO_USER:-root}"; do
    sacctmgr -i add user "$user" account=test qos=normal,urgent adminlevel=admin >/dev/null || true
  done
}

stop() {  # DAEMON
  local pid patience=100
  pid=$(pid_of "$1") || return 0
  kill "$pid"
  while is_running "$1" "$pid"; do
    ((patience--)) || kill -KILL "$pid"
    sleep 0.1
  done
}

# ---- commands -------------------------------------------------------------------------------------------------------

as_root() {  # COMMAND
  ((EUID)) || return 0
  command -v sudo >/dev/null || fail "this needs root or sudo; have someone run as root:
  apt-get install --no-install-recommends ${packages[*]}
  $self $1"
  exec sudo "$self" "$1"
}

node_is() { sinfo -h -n loopback -o %T | grep -qxE "$1"; }

node_takes_jobs() {
  ! node_is 'down.*|drain.*' || scontrol update nodename=loopback state=resume
  node_is 'idle|mixed|allocated|completing'
}

has_jobs() { [[ -n $(squeue -h) ]] || grep -q "$state/slurmd/" /proc/net/unix; }  # queued, or a step that still listens

up() {
  as_root up
  mkdir -p "$state" "$logs"
  install_packages
  local daemon
  [[ -n $(pid_of slurmctld) ]] || write_configuration
  for daemon in "${daemons[@]}"; do
    [[ -n $(pid_of "$daemon") ]] || "start_$daemon" || give_up "$daemon" "did not start"
  done
  await 60 slurmctld node_takes_jobs
  say "up: $cpus CPUs, $memory_mb MB, 2 GPUs; partitions cpu and gpu, account test; logs in $logs"
}

down() {
  as_root down
  local i patience
  if [[ -n $(pid_of slurmctld) ]]; then
    squeue -h -o %A | xargs -r scancel
    for ((patience = 150; patience; patience--)); do
      has_jobs || break
      sleep 0.2
    done
    ((patience)) || say "warning: a cancelled job is still running"
  fi
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
    stop "${daemons[i]}"
  done
  ! is_ours || rm -f "$etc"/{slurm,gres,cgroup,slurmdbd}.conf
  say "down"
}

status() {
  local daemon all=true
  for daemon in "${daemons[@]}"; do
    printf '%-10s %s\n' "$daemon" "$(pid_of "$daemon" || echo down)"
    [[ -n $(pid_of "$daemon") ]] || all=false
  done
  $all && sinfo
}

case ${1:-} in
  up | down | status) "$1" ;;
  *) fail "usage: cluster.sh up | down | status" ;;
esac
