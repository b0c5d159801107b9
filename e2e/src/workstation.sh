# The root of a workstation: all of the machine's own folders, and /bricks and /volumes of its own. That of a node has
# its own /run and /var/log too, and its own folders in /var/lib.
# Run in a new mount namespace; goes on as the process that keeps it alive.
# $1: an empty folder  $2: the node's name  $3: a folder for the node's state, if it is one
set -e
mount -t tmpfs -o mode=0755,size=1m nearbrick-lab "$1"
# The folders bound below contain this one: it must not appear in itself.
mount --make-unbindable "$1"
# Binds what is in the folder $2 of the machine to the same place of the new root $1, but for the names in $3.
bind() {
    for entry in "$2"/* "$2"/.[!.]*; do
        case " $3 " in *" ${entry##*/} "*) continue ;; esac
        if [ -L "$entry" ]; then
            cp -P "$entry" "$1$entry"
        elif [ -d "$entry" ]; then
            mkdir "$1$entry"
            mount --rbind "$entry" "$1$entry"
        fi
    done
}
if [ -z "$3" ]; then
    bind "$1" "" "bricks volumes .machine"
else
    bind "$1" "" "bricks volumes .machine run var"
    mkdir "$1/run" "$1/var" "$1/var/lib" "$1/var/log"
    bind "$1" /var "lib log run"
    bind "$1" /var/lib "cni kubelet nearbrick"
    ln -s ../run "$1/var/run"
    mount -t tmpfs -o mode=0755,size=256m nearbrick-lab "$1/run"
    mkdir -p "$1/run/lock" "$1/run/netns"
    # kubelet's is where drivers and their users look for it.
    for own in cni kubelet nearbrick; do
        mkdir -p "$1/var/lib/$own" "$3/var-lib/$own"
        mount --bind "$3/var-lib/$own" "$1/var/lib/$own"
    done
fi
mkdir "$1/bricks" "$1/volumes" "$1/.machine"
cd "$1"
pivot_root . .machine
umount --lazy /.machine
rmdir /.machine
echo "$2" >/proc/sys/kernel/hostname
# As an init system would: what is mounted in a pod can be seen by the node.
[ -z "$3" ] || mount --make-rshared /
exec sleep infinity
