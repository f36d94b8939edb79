#!/usr/bin/env bash
# A real Slurm on one machine, in the shape that sml_kernel/sites/slurm-mini.toml describes:
# three nodes of four "a100", one CPU node, accounts m1234 and m1234_g, QOS with limits.
#
#   slurm.sh start    install what is missing (Debian 12, as root), configure, start, wait for the nodes
#   slurm.sh stop     end what start started, by its pid files, with every job in it, whoever
#                     sent it (squeue shows them), and remove its configuration, by
#                     which this machine is recognised as a site; accounting and state are kept
#   slurm.sh wipe     stop, and remove accounting, state and logs
#   slurm.sh status   exit 0 when the four nodes answer
#
# start may be called again at any time, also from several processes at once. A Slurm that is not
# ours is left alone.
set -euo pipefail

run=/run/sml-slurm logs=/var/log/sml-slurm state=/var/lib/sml-slurm
conf=/etc/slurm/slurm.conf
mark="# written by tests/slurm/slurm.sh of sml-kernel"
host=$(hostname -s)
nodes=(nid001 nid002 nid003 nid004)
packages=(munge slurmctld slurmd slurm-client slurmdbd mariadb-server)

die() { echo "slurm.sh: $*" >&2; exit 1; }

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

end() {  # pid file: ask, wait up to 10 s, then insist
  if alive "$1"; then
    local pid; pid=$(cat "$1")
    kill "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  rm -f "$1"
}

until_ok() {  # what command…: until it succeeds, 30 s at most
  local what=$1; shift
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  tail -n 5 "$logs"/*.log >&2 || true
  die "waited 30 s for $what; see $logs"
}

four_nodes_idle() { [ "$(sinfo -h -N -t idle,mix,alloc -o %N 2>/dev/null | sort -u | wc -l)" = 4 ]; }

answers() {  # a Slurm of this shape, whoever started it
  command -v scontrol >/dev/null && timeout 5 scontrol ping >/dev/null 2>&1 &&
    [ "$(scontrol show config | awk '$1 == "ClusterName" {print $3}')" = perlmini ] && four_nodes_idle
}

install_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  [ "$(id -u)" = 0 ] || die "missing: ${missing[*]}; as root: apt-get install ${missing[*]}"
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; this script installs them on Debian only"
  export DEBIAN_FRONTEND=noninteractive
  # invoke-rc.d must not start the packages' own services: ours run beside each other by pid files
  local policy=/usr/sbin/policy-rc.d ours=no
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' > $policy; chmod 755 $policy; ours=yes; }
  local install=(apt-get install -y -qq --no-install-recommends "${missing[@]}") status=0
  "${install[@]}" >"$logs/apt.log" 2>&1 || { apt-get -qq update && "${install[@]}"; } >>"$logs/apt.log" 2>&1 || status=$?
  [ $ours = no ] || rm -f $policy
  [ $status = 0 ] || die "apt-get install ${missing[*]} failed; see $logs/apt.log"
}

configure() {
  mkdir -p /etc/slurm "$run/mysql" "$state/slurmctld" "$state/gpus"
  local node i
  for node in "${nodes[@]}"; do mkdir -p "$state/slurmd/$node"; done
  # Slurm sets CUDA_VISIBLE_DEVICES only for character devices: these are clones of /dev/null
  for i in 0 1 2 3; do [ -c "$state/gpus/nvidia$i" ] || mknod -m 666 "$state/gpus/nvidia$i" c 1 3; done
  printf '%s\nNodeName=nid[001-003] Name=gpu Type=a100 File=%s/gpus/nvidia[0-3]\n' "$mark" "$state" \
    > /etc/slurm/gres.conf
  local gpu_node="CPUs=128 Sockets=1 CoresPerSocket=64 ThreadsPerCore=2 RealMemory=256000 Gres=gpu:a100:4"
  cat > $conf <<CONF
$mark
ClusterName=perlmini
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
SlurmctldPidFile=$run/slurmctld.pid
SlurmctldLogFile=$logs/slurmctld.log
StateSaveLocation=$state/slurmctld
SlurmdPidFile=$run/slurmd.%n.pid
SlurmdLogFile=$logs/slurmd.%n.log
SlurmdSpoolDir=$state/slurmd/%n
SlurmdParameters=config_overrides
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
KillWait=2
MinJobAge=300
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,default_queue_depth=1000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1900
MaxArraySize=20001
MaxJobCount=30000
GresTypes=gpu
LaunchParameters=use_interactive_step
Licenses=scratch:100000,cfs:100000,SCRATCH:100000
JobCompType=jobcomp/filetxt
JobCompLoc=$logs/jobcomp.txt
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_script,job_comment
PriorityType=priority/multifactor
PriorityWeightQOS=100000
PriorityWeightAge=1000
NodeName=nid001 NodeHostname=$host NodeAddr=127.0.0.1 Port=16901 $gpu_node Feature=gpu,a100,hbm40g State=UNKNOWN
NodeName=nid002 NodeHostname=$host NodeAddr=127.0.0.1 Port=16902 $gpu_node Feature=gpu,a100,hbm40g State=UNKNOWN
NodeName=nid003 NodeHostname=$host NodeAddr=127.0.0.1 Port=16903 $gpu_node Feature=gpu,a100,hbm80g State=UNKNOWN
NodeName=nid004 NodeHostname=$host NodeAddr=127.0.0.1 Port=16904 CPUs=256 Sockets=2 CoresPerSocket=64 ThreadsPerCore=2 RealMemory=512000 Feature=cpu State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=48:00:00 DefaultTime=00:10:00 State=UP
CONF
  (umask 077; cat > /etc/slurm/slurmdbd.conf <<CONF
$mark
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
LogFile=$logs/slurmdbd.log
PidFile=$run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=13306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  )
}

start_munge() {
  munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return
  mkdir -p /run/munge /var/log/munge /var/lib/munge
  chown munge:munge /run/munge /var/log/munge /var/lib/munge
  chmod 755 /run/munge; chmod 700 /var/log/munge
  if [ ! -s /etc/munge/munge.key ]; then
    (umask 077; head -c 128 /dev/urandom > /etc/munge/munge.key); chown munge:munge /etc/munge/munge.key
  fi
  runuser -u munge -- /usr/sbin/munged 9>&-
  until_ok munge bash -c 'munge -n | unmunge'
  cp /run/munge/munged.pid "$run/munged.pid"
}

start_accounting() {
  local sql=(mariadb -S "$run/mysql/socket" -uroot)
  if ! alive "$run/mysql/pid"; then
    chown mysql:mysql "$run/mysql"
    if [ ! -d "$state/mysql/mysql" ]; then
      install -d -o mysql -g mysql "$state/mysql"
      mariadb-install-db --no-defaults --user=mysql --datadir="$state/mysql" \
        --auth-root-authentication-method=socket --skip-test-db >"$logs/mariadb-install.log" 2>&1
    fi
    setsid nohup mariadbd --no-defaults --user=mysql --datadir="$state/mysql" \
      --socket="$run/mysql/socket" --pid-file="$run/mysql/pid" --bind-address=127.0.0.1 --port=13306 \
      --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 \
      --performance-schema=OFF --skip-log-bin >"$logs/mariadb.log" 2>&1 </dev/null 9>&- &
    until_ok mariadb "${sql[@]}" -e 'select 1'
    "${sql[@]}" -e "create database if not exists slurm_acct_db;
      create user if not exists 'slurm'@'127.0.0.1' identified by 'slurm';
      create user if not exists 'slurm'@'localhost' identified by 'slurm';
      grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';
      grant all on slurm_acct_db.* to 'slurm'@'localhost'"
  fi
  alive "$run/slurmdbd.pid" || slurmdbd 9>&-
  until_ok slurmdbd sacctmgr -n show qos
  sacctmgr -nP show cluster format=cluster | grep -q . || sacctmgr -iQ add cluster perlmini >/dev/null
}

add_accounts() {
  sacctmgr -nP show qos format=name | grep -q '^shared$' && return
  until_ok "gres/gpu in the accounting" bash -c 'sacctmgr -nP show tres | grep -q gpu'
  sacctmgr -iQ >/dev/null <<'QOS'
add qos regular,debug,shared,interactive,shared_interactive,preempt,premium,overrun
modify qos regular set MaxWall=2-00:00:00 MaxSubmitJobsPerUser=5000
modify qos preempt set MaxWall=2-00:00:00 MaxSubmitJobsPerUser=5000
modify qos debug set Priority=1000 MaxWall=00:30:00 MaxSubmitJobsPerUser=5 MaxJobsPerUser=2 MaxTRESPerJob=node=8 Flags=DenyOnLimit
modify qos interactive set Priority=1000 MaxWall=04:00:00 MaxSubmitJobsPerUser=2 MaxJobsPerUser=2 MaxTRESPerJob=node=4 Flags=DenyOnLimit
modify qos shared_interactive set Priority=1000 MaxWall=04:00:00 MaxSubmitJobsPerUser=2 MaxJobsPerUser=2 MaxTRESPerJob=gres/gpu=2 Flags=DenyOnLimit
modify qos shared set MaxWall=2-00:00:00 MaxSubmitJobsPerUser=5000 MaxTRESPerJob=gres/gpu=2
modify qos premium set Priority=2000 MaxWall=2-00:00:00 MaxSubmitJobsPerUser=5
add account m1234,m1234_g
add user root account=m1234,m1234_g DefaultAccount=m1234
modify user root set qos=regular,debug,shared,interactive,shared_interactive,preempt,premium,overrun defaultqos=debug
QOS
}

start() {
  answers && return
  if [ -e $conf ] && ! grep -qxF "$mark" $conf && ! grep -q '^ClusterName=perlmini$' $conf; then
    die "$conf belongs to another Slurm; this script leaves it alone"
  fi
  [ "$(id -u)" = 0 ] || { install_packages; die "the daemons start as root only; as root: tests/slurm/slurm.sh start"; }
  mkdir -p "$run" "$logs" "$state"
  exec 9>"$run/lock"; flock 9  # one start at a time; the daemons are started with 9 closed
  answers && return
  install_packages
  configure
  start_munge
  start_accounting
  alive "$run/slurmctld.pid" || slurmctld 9>&-
  until_ok slurmctld scontrol ping
  local node
  for node in "${nodes[@]}"; do alive "$run/slurmd.$node.pid" || slurmd -N "$node" 9>&-; done
  add_accounts
  until_ok "four nodes" four_nodes_idle
}

stop() {
  [ -d "$run" ] || return 0
  [ "$(id -u)" = 0 ] || die "run stop as root"
  if alive "$run/slurmctld.pid"; then  # what runs in the jobs is not ours by pid file, so ask Slurm
    timeout 10 scancel -u root >/dev/null 2>&1 || true
    for _ in $(seq 50); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
  fi
  local node file
  for node in "${nodes[@]}"; do end "$run/slurmd.$node.pid"; done
  for file in slurmctld.pid slurmdbd.pid mysql/pid munged.pid; do end "$run/$file"; done
  for file in slurm gres slurmdbd; do
    if grep -qsxF "$mark" "/etc/slurm/$file.conf"; then rm "/etc/slurm/$file.conf"; fi
  done
}

case "${1:-}" in
  start) start; sinfo -N -o '%N %t %c %m %G %f' ;;
  stop) stop ;;
  wipe)
    stop
    rm -rf "$run" "$logs" "$state" ;;
  status) answers || die "no Slurm of this shape answers; as root: tests/slurm/slurm.sh start"
    sinfo -N -o '%N %t %c %m %G %f' ;;
  *) echo "usage: $0 start|stop|wipe|status" >&2; exit 2 ;;
esac
