package e2e

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func spec(image string) *cri.ImageSpec { return &cri.ImageSpec{Image: image} }

func imageStatus(t testing.TB, image string) *cri.Image {
	t.Helper()
	return do(t, img.ImageStatus, &cri.ImageStatusRequest{Image: spec(image)}).Image
}

func removeImage(t testing.TB, image string) {
	t.Helper()
	do(t, img.RemoveImage, &cri.RemoveImageRequest{Image: spec(image)})
}

func TestImagePulledByTagIsFoundByEveryName(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	id := pull(t, "test/base")
	if !strings.HasPrefix(id, "sha256:") || len(id) != 71 {
		t.Errorf("image_ref %q is no image ID", id)
	}
	st := imageStatus(t, ref("test/base"))
	if st == nil {
		t.Fatal("not found by its tag")
	}
	equal(t, "id", st.Id, id)
	if !slices.Contains(st.RepoTags, ref("test/base")) {
		t.Errorf("tags are %v", st.RepoTags)
	}
	if len(st.RepoDigests) != 1 || !strings.HasPrefix(st.RepoDigests[0], *registry+"/test/base@sha256:") {
		t.Fatalf("digests are %v", st.RepoDigests)
	}
	if st.Size == 0 {
		t.Error("size is 0")
	}
	for _, name := range []string{id, strings.TrimPrefix(id, "sha256:"), st.RepoDigests[0], id[7:19]} {
		if other := imageStatus(t, name); other == nil || other.Id != id {
			t.Errorf("not found as %s", name)
		}
	}
	verbose := do(t, img.ImageStatus, &cri.ImageStatusRequest{Image: spec(id), Verbose: true})
	if len(verbose.Info) == 0 {
		t.Error("verbose status has no info")
	}
}

func TestImagePulledByDigest(t *testing.T) {
	id := pull(t, "test/tags:1")
	digest := imageStatus(t, ref("test/tags:1")).RepoDigests[0]
	removeImage(t, id)
	again := do(t, img.PullImage, &cri.PullImageRequest{Image: spec(digest)}).ImageRef
	equal(t, "id", again, id)
	st := imageStatus(t, digest)
	if st == nil || len(st.RepoTags) != 0 || !slices.Contains(st.RepoDigests, digest) {
		t.Errorf("an image pulled by digest is %v", st)
	}
	removeImage(t, id)
}

func TestImageUnknownHasNoStatusAndNoError(t *testing.T) {
	for _, name := range []string{ref("test/never"), "sha256:" + strings.Repeat("0", 64), "nothing"} {
		if st := imageStatus(t, name); st != nil {
			t.Errorf("%s is %v", name, st)
		}
	}
	removeImage(t, ref("test/never"))
}

func TestImagePullRefusals(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	zeros := "sha256:" + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		image string
		codes []codes.Code
	}{
		"a tag that is not there":           {*registry + "/test/base:never", []codes.Code{codes.NotFound}},
		"a repository that is not there":    {*registry + "/test/never:latest", []codes.Code{codes.NotFound}},
		"a digest that is not there":        {*registry + "/test/base@" + zeros, []codes.Code{codes.NotFound}},
		"a registry that nobody runs":       {"127.0.0.1:1/test/base:latest", []codes.Code{codes.Unavailable}},
		"a host that has no address":        {"no-such-host.invalid/test/base:latest", []codes.Code{codes.Unavailable}},
		"an empty name":                     {"", []codes.Code{codes.InvalidArgument}},
		"upper case":                        {*registry + "/Test/Base", []codes.Code{codes.InvalidArgument}},
		"a digest that is too short":        {*registry + "/test/base@sha256:1234", []codes.Code{codes.InvalidArgument}},
		"a digest of an unknown algorithm":  {*registry + "/test/base@md5:" + strings.Repeat("0", 32), []codes.Code{codes.InvalidArgument}},
		"a name with ..":                    {*registry + "/../base", []codes.Code{codes.InvalidArgument}},
		"a port that is none":               {"127.0.0.1:99999/test/base", []codes.Code{codes.InvalidArgument}},
		"a newline":                         {*registry + "/test/base:la\ntest", []codes.Code{codes.InvalidArgument}},
		"a name longer than any":            {*registry + "/" + strings.Repeat("a/", 3000) + "a", []codes.Code{codes.InvalidArgument}},
		"an image for another architecture": {ref("test/foreign"), []codes.Code{codes.NotFound, codes.FailedPrecondition, codes.InvalidArgument}},
	} {
		t.Run(name, func(t *testing.T) {
			text := refused(t, img.PullImage, &cri.PullImageRequest{Image: spec(c.image)}, c.codes...)
			if c.image != "" && len(c.image) < 200 && !strings.Contains(c.image, "\n") && c.codes[0] != codes.InvalidArgument {
				contains(t, "the error", text, c.image[:strings.LastIndexAny(c.image, ":@")])
			}
		})
	}
	refused(t, img.PullImage, &cri.PullImageRequest{}, codes.InvalidArgument)
	refused(t, img.ImageStatus, &cri.ImageStatusRequest{}, codes.InvalidArgument)
	refused(t, img.RemoveImage, &cri.RemoveImageRequest{}, codes.InvalidArgument)
}

func TestImageParallelPullsOfOneImageAgree(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	removeImage(t, ref("test/big"))
	var wait sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wait.Add(1)
		go func() {
			defer wait.Done()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			answer, err := img.PullImage(ctx, &cri.PullImageRequest{Image: spec(ref("test/big"))})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = answer.ImageRef
		}()
	}
	wait.Wait()
	for _, id := range ids {
		equal(t, "id", id, ids[0])
	}
	removeImage(t, ref("test/big"))
}

func TestImageRemovedByOneTagKeepsTheOthers(t *testing.T) {
	id := pull(t, "test/tags:1")
	equal(t, "id of tag 2", pull(t, "test/tags:2"), id)
	equal(t, "id of tag 3", pull(t, "test/tags:3"), id)
	st := imageStatus(t, id)
	if len(st.RepoTags) != 3 || len(st.RepoDigests) != 1 {
		t.Errorf("tags %v, digests %v", st.RepoTags, st.RepoDigests)
	}
	listed := 0
	for _, i := range do(t, img.ListImages, &cri.ListImagesRequest{}).Images {
		if i.Id == id {
			listed++
		}
	}
	equal(t, "times that the image is listed", listed, 1)
	removeImage(t, ref("test/tags:1"))
	if imageStatus(t, ref("test/tags:1")) != nil {
		t.Error("the tag is still there")
	}
	if st = imageStatus(t, ref("test/tags:2")); st == nil || len(st.RepoTags) != 2 {
		t.Errorf("the other tags are %v", st)
	}
	removeImage(t, id)
	if imageStatus(t, ref("test/tags:2")) != nil || imageStatus(t, id) != nil {
		t.Error("removed by ID, but still there")
	}
}

func TestImageListFilters(t *testing.T) {
	pull(t, "test/base")
	pull(t, "test/tags:1")
	one := do(t, img.ListImages, &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec(ref("test/base"))}}).Images
	if len(one) != 1 || !slices.Contains(one[0].RepoTags, ref("test/base")) {
		t.Errorf("filtered: %v", one)
	}
	if none := do(t, img.ListImages, &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec(ref("test/never"))}}).Images; len(none) != 0 {
		t.Errorf("filtered: %v", none)
	}
	if all := do(t, img.ListImages, &cri.ListImagesRequest{Filter: &cri.ImageFilter{}}).Images; len(all) < 2 {
		t.Errorf("all: %v", all)
	}
	removeImage(t, ref("test/tags:1"))
}

func TestImageInUseIsRemovedAndItsContainerRunsOn(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	id := pull(t, "test/layers")
	c := p.run(withImage("test/layers"))
	removeImage(t, id)
	if imageStatus(t, id) != nil {
		t.Error("still there")
	}
	equal(t, "a file of the image", c.sh("cat /a/kept"), "kept\n")
	equal(t, "image_ref", c.status().ImageRef, id)
	restartDaemon(t)
	equal(t, "a file of the image after a restart", c.sh("cat /a/kept"), "kept\n")
}

func TestImageFsInfoNamesOneFileSystemAndGrows(t *testing.T) {
	removeImage(t, ref("test/big"))
	usage := func() *cri.FilesystemUsage {
		answer := do(t, img.ImageFsInfo, &cri.ImageFsInfoRequest{})
		if len(answer.ImageFilesystems) != 1 {
			t.Fatalf("file systems: %v", answer.ImageFilesystems)
		}
		return answer.ImageFilesystems[0]
	}
	before := usage()
	if before.FsId.GetMountpoint() == "" || before.Timestamp == 0 {
		t.Errorf("usage is %v", before)
	}
	if _, err := os.Stat(before.FsId.GetMountpoint()); err != nil {
		t.Error(err)
	}
	pull(t, "test/big")
	grown := usage().UsedBytes.GetValue() - before.UsedBytes.GetValue()
	if grown < 80<<20 || grown > 400<<20 {
		t.Errorf("180 MB unpacked were counted as %d bytes", grown)
	}
	if inodes := usage().InodesUsed.GetValue() - before.InodesUsed.GetValue(); inodes < 2000 {
		t.Errorf("2,000 files were counted as %d inodes", inodes)
	}
	removeImage(t, ref("test/big"))
	eventually(t, 10*time.Second, "the space is given back", func() error {
		if used := usage().UsedBytes.GetValue(); used > before.UsedBytes.GetValue()+1<<20 {
			return os.ErrExist
		}
		return nil
	})
}

// Formats: each is pulled, run, and shows a file of its own.
func TestImageFormats(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	for name, c := range map[string]struct{ image, file, text string }{
		"an index takes the machine's platform": {"test/multi", "/arch", "amd64\n"},
		"a Docker manifest list":                {"test/docker", "/arch", "amd64\n"},
		"a Docker manifest":                     {"test/docker-single", "/arch", "amd64\n"},
		"zstd layers":                           {"test/zstd", "/zstd", "zstd\n"},
		"uncompressed layers":                   {"test/plain", "/plain", "plain\n"},
		"an empty layer":                        {"test/empty-layer", "/after", "after\n"},
		"the same layer twice":                  {"test/same-layer-twice", "/arch", "amd64\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.with(t)
			equal(t, c.file, p.output("cat "+c.file, withImage(c.image)), c.text)
			removeImage(t, ref(c.image))
		})
	}
}

// Each line of the script proves one rule of the OCI layer specification.
func TestImageLayersAreAppliedInOrder(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	pull(t, "test/layers")
	c := p.run(withImage("test/layers"))
	for name, test := range map[string][2]string{
		"a file stays":                          {"cat /a/kept", "kept\n"},
		"a whiteout takes a file away":          {"ls /a", "kept\nsub\n"},
		"a whiteout takes a folder away":        {"ls /a/sub", "new\n"},
		"an opaque folder hides what was below": {"ls /opaque", "new\nnewer\n"},
		"a file becomes a folder":               {"cat /becomes-dir/inside", "inside\n"},
		"a folder becomes a file":               {"cat /becomes-file", "file\n"},
		"a folder becomes a link":               {"readlink /becomes-link; cat /becomes-link/kept", "a\nkept\n"},
		"content, owner and mode change":        {"cat /changed; stat -c '%a %u %g' /changed", "second\n644 33 33\n"},
		"a hard link outlives its first name":   {"ls /hard-a 2>/dev/null; cat /hard-b", "hard\n"},
		"the sticky bit":                        {"stat -c %a /sticky", "1777\n"},
		"the setgid bit and a group":            {"stat -c '%a %g' /setgid", "2775 2001\n"},
		"the setuid bit":                        {"stat -c %a /setuid", "4755\n"},
		"owner and group":                       {"stat -c '%u %g %a' /owned", "1001 2001 640\n"},
		"IDs beyond 16 bits":                    {"stat -c '%u %g' /big-ids", "2000000 3000000\n"},
		"an absolute link":                      {"readlink /link-abs; cat /link-abs", "/a/kept\nkept\n"},
		"a relative link":                       {"readlink /link-rel; cat /link-rel", "a/kept\nkept\n"},
		"a dangling link":                       {"readlink /link-dangling", "/nowhere\n"},
		"a file comes back":                     {"cat /back", "again\n"},
		"a space in a name":                     {"cat '/name with space'", "space\n"},
		"UTF-8 in a name":                       {"cat /ümläut", "utf-8\n"},
		"a name longer than tar's field":        {"cat /l*l/m*m", "long\n"},
		"a FIFO":                                {"test -p /pipe && echo yes", "yes\n"},
		"the time of a file":                    {"stat -c %Y /a/kept", "1700000000\n"},
		"no whiteout is seen":                   {"find / -xdev -name '.wh.*' | wc -l", "0\n"},
		"no character device 0/0 is seen":       {"find / -xdev -type c | wc -l", "0\n"},
		"the root folder can be entered by all": {"stat -c %a /", "755\n"},
	} {
		t.Run(name, func(t *testing.T) { equal(t, test[0], c.with(t).sh(test[0]), test[1]) })
	}
}
