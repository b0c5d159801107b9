# The root of a workstation: all of the machine's own folders, and /bricks and /volumes of its own.
# Run in a new mount namespace; goes on as the process that keeps it alive.
# $1: an empty folder  $2: the node's name
set -e
mount -t tmpfs -o mode=0755,size=1m nearbrick-lab "$1"
# The folders bound below contain this one: it must not appear in itself.
mount --make-unbindable "$1"
for entry in /* /.[!.]*; do
    case ${entry#/} in bricks | volumes | .machine) continue ;; esac
    if [ -L "$entry" ]; then
        cp -P "$entry" "$1$entry"
    elif [ -d "$entry" ]; then
        mkdir "$1$entry"
        mount --rbind "$entry" "$1$entry"
    fi
done
mkdir "$1/bricks" "$1/volumes" "$1/.machine"
cd "$1"
pivot_root . .machine
umount --lazy /.machine
rmdir /.machine
echo "$2" >/proc/sys/kernel/hostname
exec sleep infinity
