# A place for measuring on a workstation: a disk of its own for each file system, and GlusterFS's state apart
# from the machine's. Run in a new mount namespace; goes on as the process that keeps it alive.
# $1: folder of the images
set -e
for name in native gluster-1 gluster-2; do
    mkdir -p "/bench/$name"
    mount -o loop "$1/$name.img" "/bench/$name"
done
mkdir -p /bench/gluster
mount -t tmpfs nearbrick-lab /run
mkdir -p /run/gluster /run/lock
for dir in /var/lib/glusterd /var/log/glusterfs; do
    if [ -d "$dir" ]; then mount -t tmpfs nearbrick-lab "$dir"; fi
done
exec sleep infinity
