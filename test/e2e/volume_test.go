package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images that are mounted in containers, and folders of the host that are mounted with other IDs.

func imageVolume(name, subPath, inside string) ctrMod {
	return mount(&cri.Mount{Image: &cri.ImageSpec{Image: ref(name)}, ImageSubPath: subPath, ContainerPath: inside, Readonly: true})
}

func TestImageVolume(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	for _, name := range []string{"test/volume", "test/volume-one"} {
		pull(t, name)
	}
	for name, mods := range map[string][]podMod{"in a pod": nil, "in a pod with a user namespace": {userns}} {
		t.Run(name, func(t *testing.T) {
			p := runPod(t, mods...)
			c := p.run(imageVolume("test/volume", "", "/vol"), imageVolume("test/volume-one", "", "/one"))
			equal(t, "content", c.sh("cat /vol/data/file /one/data/file /vol/data/sub/inner"), "two\none\ninner\n")
			equal(t, "names", c.sh("ls /vol/data /one/data"), "/one/data:\nfile\ngone\nsub\n\n/vol/data:\nfile\nsub\n")
			equal(t, "owner", c.sh("stat -c %u:%g /vol/data/file /one /vol"), "0:0\n0:0\n0:0\n")
			c.sh("! touch /vol/x && ! touch /one/data/x && ! rm /one/data/file && ! mount -o remount,rw /vol")
			c.sh("/vol/run.sh && /one/run.sh")
			options := strings.Fields(c.sh("grep ' /vol ' /proc/mounts"))[3]
			contains(t, "options", ","+options+",", ",ro,", ",nosuid,", ",nodev,")
			lacks(t, "options", options, "noexec")
			st := c.status().Mounts[0]
			equal(t, "image in the status", st.Image.GetImage(), ref("test/volume"))
			equal(t, "its ID there", st.Image.GetImageRef(), pull(t, "test/volume"))
			equal(t, "the other's", c.status().Mounts[1].Image.GetImageRef(), pull(t, "test/volume-one"))
			equal(t, "container path in the status", st.ContainerPath, "/vol")
		})
	}
	p := runPod(t)
	t.Run("a folder of it", func(t *testing.T) {
		c := p.with(t).run(imageVolume("test/volume", "data/sub", "/vol"))
		equal(t, "content", c.sh("ls /vol; cat /vol/inner"), "inner\ninner\n")
		equal(t, "in the status", c.status().Mounts[0].ImageSubPath, "data/sub")
	})
	t.Run("a file of it", func(t *testing.T) {
		p.with(t).output("test \"$(cat /etc/motd)\" = two && ! sh -c 'echo x > /etc/motd'", imageVolume("test/volume", "data/file", "/etc/motd"))
	})
	t.Run("through a link inside", func(t *testing.T) {
		equal(t, "content", p.with(t).output("cat /vol/inner", imageVolume("test/volume", "link", "/vol")), "inner\n")
	})
	for name, path := range map[string]string{"missing": "data/none", "a link out": "out", "a link up": "up", "a magic link": "magic", "a FIFO": "fifo",
		"a device": "device", "below a file": "data/file/x", "too long": strings.Repeat("x/", 3000)} {
		t.Run("refused: "+name, func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(imageVolume("test/volume", path, "/vol")), codes.InvalidArgument)
		})
	}
	t.Run("up and up stays inside", func(t *testing.T) {
		equal(t, "content", p.with(t).output("cat /vol/file", imageVolume("test/volume", "../../../data", "/vol")), "two\n")
	})
	t.Run("refused: an image that is not there", func(t *testing.T) {
		contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(imageVolume("test/nobody", "", "/vol")), codes.NotFound), "test/nobody", "/vol")
	})
	for name, m := range map[string]*cri.Mount{
		"that is to be written to":    {ContainerPath: "/vol"},
		"with a host path":            {HostPath: "/tmp", ContainerPath: "/vol"},
		"over the devices":            {ContainerPath: "/dev"},
		"below the processes":         {ContainerPath: "//proc/x"},
		"that is to propagate":        {ContainerPath: "/vol", Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		"without a path in the image": {ContainerPath: ""},
	} {
		m.Image, m.Readonly = &cri.ImageSpec{Image: ref("test/volume")}, name != "that is to be written to"
		t.Run("refused: "+name, func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(mount(m)), codes.InvalidArgument)
		})
	}
	t.Run("beside a mount that propagates to the host", func(t *testing.T) {
		dir := scratch(t)
		command(t, "mount", "--bind", dir, dir)
		command(t, "mount", "--make-rshared", dir)
		t.Cleanup(func() { command(t, "umount", "--recursive", dir) })
		p := runPod(t, privilegedPod)
		equal(t, "content", p.output("cat /vol/data/file /file", privileged, imageVolume("test/volume", "", "/vol"), imageVolume("test/volume", "data/file", "/file"),
			mount(&cri.Mount{HostPath: dir, ContainerPath: "/mnt", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL})), "two\ntwo\n")
	})
}

func TestImageVolumeOutlivesItsImage(t *testing.T) {
	leavesNothing(t)
	id := pull(t, "test/volume")
	p := runPod(t)
	c := p.run(imageVolume("test/volume", "data", "/vol"))
	removeImage(t, ref("test/volume"))
	equal(t, "content", c.sh("cat /vol/file"), "two\n")
	killDaemon(t)
	equal(t, "the image's ID in the status", c.status().Mounts[0].Image.GetImageRef(), id)
	equal(t, "content after the daemon's death", c.sh("cat /vol/sub/inner"), "inner\n")
	refused(t, rt.CreateContainer, p.createRequest(imageVolume("test/volume", "data", "/vol")), codes.NotFound)
	pull(t, "test/volume")
	equal(t, "content pulled again", p.output("cat /vol/file", imageVolume("test/volume", "data", "/vol")), "two\n")
}

func TestMountWithMappedIDs(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	// The root of a test machine is an overlay, which maps no IDs; the file system of the store does.
	disk := "/var/lib/rktlet/e2e-mapped"
	if err := os.MkdirAll(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(disk) })
	writeFile(t, disk+"/root", "root's\n", 0o600)
	writeFile(t, disk+"/user", "user's\n", 0o600)
	if err := os.Chown(disk+"/user", 1001, 1001); err != nil {
		t.Fatal(err)
	}
	ids := func(host, inside, length uint32) []*cri.IDMapping {
		return []*cri.IDMapping{{HostId: host, ContainerId: inside, Length: length}}
	}
	mapped := func(m *cri.Mount, uids, gids []*cri.IDMapping) ctrMod {
		m.HostPath, m.ContainerPath, m.UidMappings, m.GidMappings = disk, "/mnt", uids, gids
		return mount(m)
	}
	owner := func(t *testing.T, path string, uid, gid uint32) {
		t.Helper()
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			t.Error(err)
		} else if st.Uid != uid || st.Gid != gid {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
	t.Run("as the pod's", func(t *testing.T) {
		p := runPod(t, userns)
		c := p.run(mapped(&cri.Mount{}, ids(1000000, 0, 65536), ids(2000000, 0, 65536)))
		equal(t, "owners", c.sh("cat /mnt/root /mnt/user; stat -c %u:%g /mnt/root /mnt/user"), "root's\nuser's\n0:0\n1001:1001\n")
		c.sh("touch /mnt/new && chown 7:8 /mnt/new")
		owner(t, disk+"/new", 7, 8)
		equal(t, "in the status", c.status().Mounts[0].UidMappings[0].HostId, 1000000)
		p.output("! touch /mnt/x && cat /mnt/root", mapped(&cri.Mount{Readonly: true}, ids(1000000, 0, 65536), ids(2000000, 0, 65536)))
		p.output("! touch /mnt/x && cat /mnt/root", mapped(&cri.Mount{Readonly: true, RecursiveReadOnly: true}, ids(1000000, 0, 65536), ids(2000000, 0, 65536)))
	})
	t.Run("a file", func(t *testing.T) {
		p := runPod(t, userns)
		equal(t, "owner", p.output("cat /file; stat -c %u /file", mount(&cri.Mount{HostPath: disk + "/user", ContainerPath: "/file",
			UidMappings: ids(1000000, 0, 65536), GidMappings: ids(2000000, 0, 65536)})), "user's\n1001\n")
	})
	t.Run("otherwise than the pod's", func(t *testing.T) {
		equal(t, "owners", runPod(t, userns).output("stat -c %u:%g /mnt/root /mnt/user", mapped(&cri.Mount{}, ids(1000005, 0, 10), ids(2000006, 0, 10))), "5:6\n65534:65534\n")
	})
	t.Run("in a pod without a user namespace", func(t *testing.T) {
		p := runPod(t)
		c := p.run(mapped(&cri.Mount{}, ids(4321, 0, 1), ids(8765, 0, 1)))
		equal(t, "owner", c.sh("stat -c %u:%g /mnt/root"), "4321:8765\n")
	})
	p := runPod(t)
	for name, mod := range map[string]ctrMod{
		"users alone":      mapped(&cri.Mount{}, ids(1, 0, 1), nil),
		"an empty range":   mapped(&cri.Mount{}, ids(1, 0, 0), ids(1, 0, 1)),
		"with propagation": mapped(&cri.Mount{Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}, ids(1, 0, 1), ids(1, 0, 1)),
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(mod), codes.InvalidArgument)
		})
	}
	t.Run("refused: a file system that maps no IDs", func(t *testing.T) {
		m := &cri.Mount{HostPath: "/proc", ContainerPath: "/mnt", UidMappings: ids(1, 0, 1), GidMappings: ids(1, 0, 1)}
		contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(mount(m)), codes.FailedPrecondition), "/proc", "map IDs")
	})
}
