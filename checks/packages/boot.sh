#!/bin/bash
# Boots the systemd of this machine once more, in namespaces of its own, over a copy of the
# root that forgets everything. $1 is a folder for it, $2 a folder that is seen as /mnt.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir -p "$1"/upper "$1"/work "$1"/root
root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
	umount "$root/sys/fs/cgroup"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
	mkdir "$root/sys/fs/cgroup/systemd"
	mount -t cgroup -o none,name=systemd,xattr cgroup "$root/sys/fs/cgroup/systemd"
fi
mount --rbind /dev "$root/dev"
mount --make-rprivate "$root/dev"
for dir in run tmp; do mount -t tmpfs tmpfs "$root/$dir"; done
mount --bind "$2" "$root/mnt"
# Nothing of this machine starts in there.
rm -rf "$root"/etc/systemd/system/*.wants "$root/usr/sbin/policy-rc.d"
printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nRequires=sysinit.target basic.target\n' >"$root/etc/systemd/system/checks.target"
for unit in systemd-udevd systemd-udev-trigger systemd-networkd systemd-resolved systemd-timesyncd systemd-remount-fs systemd-firstboot; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
: >"$root/etc/fstab"
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=nspawn PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=checks.target --log-target=journal --show-status=no
