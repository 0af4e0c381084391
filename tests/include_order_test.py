"""Reads every include line of the tree and fails on what docs/architecture.md forbids: an upward include, a folder
deeper than three levels, a header included by a relative path, someone else's header in a public one."""
import os
import re
import sys
import tempfile

# Folder -> what it may include besides itself and its subfolders. The longest matching folder counts.
BELOW = {
    "core/base": [],
    "core/tensor": ["core/base"],
    "core/io": ["core/tensor", "core/base"],
    "core/backend": ["core/tensor", "core/base"],
    "core/layers": ["core/backend", "core/tensor", "core/base"],
    "core/model": ["core/layers", "core/backend", "core/tensor", "core/base", "core/io"],
    "core/generate": ["core/model", "core/layers", "core/backend", "core/tensor", "core/base", "core/io"],
    "data": ["core/tensor", "core/io", "core/base"],
    "parallel": ["core"],
    "optim": ["parallel", "core", "data"],
    "rl": ["optim", "parallel", "core", "data"],
    "launch": ["rl", "optim", "parallel", "core", "data"],
    "tests": ["launch", "rl", "optim", "parallel", "core", "data"],
}
# A library's header -> the folders that may name it. `moebius doctor` asks oneDNN for its version.
ONLY_IN = {
    "hdf5.h": ["core/io"],
    "mpi.h": ["parallel/comm"],
    "nccl.h": ["core/backend/cuda"],
    "cuda_runtime.h": ["core/backend/cuda"],
    "dnnl.h": ["core/backend", "launch"],
    "dnnl.hpp": ["core/backend"],
}
MAX_LEVELS = 3
SOURCES = (".h", ".cc", ".cu", ".cuh")


def folder_of(path):
    parts = os.path.dirname(path)
    while parts and parts not in BELOW:
        parts = os.path.dirname(parts)
    return parts


def inside(path, folder):
    return path == folder or path.startswith(folder + "/")


def check_file(root, path):
    errors = []
    owner = folder_of(path)
    with open(os.path.join(root, path), encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            if path.endswith(".proto"):
                match = re.match(r'\s*import\s+(?:public\s+)?"([^"]+)"', line)
            else:
                match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
            if not match:
                continue
            name = match.group(1)
            if name in ONLY_IN:
                if not any(inside(path, home) for home in ONLY_IN[name] + ["tests"]):
                    errors.append(f"{where}: {name} belongs behind {' or '.join(ONLY_IN[name])}")
                continue
            if name.endswith(".pb.h") and path.endswith(".h") and not inside(path, "tests"):
                errors.append(f"{where}: {name} in a header; forward-declare the message")
                continue
            if re.match(r"\s*#\s*include\s*<", line):
                continue
            if name.startswith(("absl/", "google/protobuf/", "gtest/", "hwy/")):
                continue
            below = folder_of(name)
            if not below:
                errors.append(f"{where}: include {name} from the root of the repository")
            elif not inside(below, owner) and not inside(name, owner) and not any(
                inside(name, allowed) for allowed in BELOW[owner]
            ):
                errors.append(f"{where}: {owner} must not include {name}")
    return errors


def check_tree(root):
    errors, count = [], 0
    for top in sorted({folder.split("/")[0] for folder in BELOW}):
        for folder, _, names in os.walk(os.path.join(root, top)):
            relative = os.path.relpath(folder, root)
            levels = len(relative.split(os.sep)) - (relative.split(os.sep)[0] == "tests")
            if levels > MAX_LEVELS and any(name.endswith(SOURCES) for name in names):
                errors.append(f"{relative}: {levels} folder levels; {MAX_LEVELS} are the most")
            for name in names:
                path = os.path.join(relative, name)
                if not name.endswith(SOURCES + (".proto",)):
                    continue
                if not folder_of(path):
                    errors.append(f"{path}: lies in no folder of the architecture")
                    continue
                count += 1
                errors += check_file(root, path)
    return errors, count


def check_the_checker():
    """The rules must bite: each of these lines is an error."""
    bad = {
        "core/base/a.cc": '#include "core/io/file.h"',
        "core/layers/a.cc": '#include "optim/train_step.h"',
        "data/a.cc": '#include "core/layers/layer.h"',
        "optim/a.h": '#include "optim/optim.pb.h"',
        "launch/a.cc": '#include "cli.h"',
        "core/model/a.cc": "#include <hdf5.h>",
        "data/b.proto": 'import "launch/recipe.proto";',
        "core/backend/cpu/deep/a.cc": "",
    }
    good = {
        "core/io/a.cc": '#include "core/tensor/tensor.h"\n#include <hdf5.h>\n#include "absl/status/status.h"',
        "core/backend/cpu/a.cc": '#include "core/backend/backend.h"',
        "launch/report/a.cc": '#include "launch/recipe.pb.h"\n#include "core/base/status.h"',
    }
    for files, wanted in ((bad, len(bad)), (good, 0)):
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as out:
                    out.write(text + "\n")
            errors, _ = check_tree(root)
            if len(errors) != wanted:
                sys.exit(f"the checker found {len(errors)} errors, not {wanted}: {errors}")


def main():
    check_the_checker()
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    errors, count = check_tree(root)
    if errors:
        sys.exit("\n".join(errors))
    if count < 10:
        sys.exit(f"only {count} files under {root}: is this the repository?")
    print(f"{count} files, no include against the order")


main()
