#!/bin/sh
# Init of the Linux guest: configures the NIC from the kernel command line, then does what the console says.
#
# Command line: culvert.ip=ADDRESS/LENGTH and optionally culvert.gateway=ADDRESS.
# Every line that starts with "culvert-guest:" is for the program that drives the guest:
#   culvert-guest: up at SECONDS kernel RELEASE [nic NAME MAC driver NAME mtu N]
#   culvert-guest: status CODE     after each command line
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -echo < /dev/console
for module in failover net_failover virtio_net; do
    insmod /modules/$module.ko || echo "culvert-guest: cannot load $module"
done
ip link set lo up

option() {
    tr ' ' '\n' < /proc/cmdline | sed -n "s/^culvert\.$1=//p"
}

# The driver binds as soon as it is loaded; its interface takes a moment.
nic=""
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$(option ip)" ] && break
    if [ -d /sys/class/net/eth0 ]; then
        ip link set eth0 up
        ip addr add "$(option ip)" dev eth0
        [ -n "$(option gateway)" ] && ip route add default via "$(option gateway)"
        driver=$(readlink /sys/class/net/eth0/device/driver)
        nic=" nic eth0 $(cat /sys/class/net/eth0/address) driver ${driver##*/} mtu $(cat /sys/class/net/eth0/mtu)"
        break
    fi
    sleep 0.2
done
echo "culvert-guest: up at $(cut -d' ' -f1 /proc/uptime) kernel $(uname -r)$nic"

while read -r line; do
    case $line in
    reboot) reboot -f ;;
    poweroff) poweroff -f ;;
    *)
        sh -c "$line" < /dev/null
        echo "culvert-guest: status $?"
        ;;
    esac
done
poweroff -f
