package dist

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"gopeft/train/launch"
)

// ownAddress is what this process listens on for the others: loopback where all are on this machine, "" where
// GLOO_SOCKET_IFNAME names an interface, else the address from which the store's host is reached.
func ownAddress(w launch.World) (string, error) {
	switch {
	case w.LocalSize == w.Size:
		return "127.0.0.1", nil
	case os.Getenv("GLOO_SOCKET_IFNAME") != "":
		return "", nil
	}
	c, err := net.Dial("udp", net.JoinHostPort(w.Host, strconv.Itoa(w.Port))) // sends nothing: it asks for the route
	if err != nil {
		return "", fmt.Errorf("MASTER_ADDR: %w", err)
	}
	defer c.Close()
	ip := c.LocalAddr().(*net.UDPAddr).IP
	if ip.IsLoopback() {
		return "", fmt.Errorf("MASTER_ADDR %s is this machine's loopback address, which the run's other machines do not reach: give one that they do, or GLOO_SOCKET_IFNAME", w.Host)
	}
	return ip.String(), nil
}

// machine names where a process's number means the same: this start of this machine, and its namespace of processes.
// It is "" where that is not told.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// startOf is when a process started, as the kernel counts; "" for one that has ended.
func startOf(pid int) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // after the name, which may hold anything
	fields := strings.Fields(rest)
	const state, started = 0, 19
	if len(fields) <= started || fields[state] == "Z" || fields[state] == "X" {
		return ""
	}
	return fields[started]
}

// short bounds what is shown of a text.
func short(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + " …"
	}
	return text
}
