"""Completes what cyclonedx-gomod has found by what is no Go module, and writes it, or prints the licences alone."""

import csv
import json
import pathlib
import re
import sys

# Licences that the tool does not find or takes for others, read by hand: of which component, what it says, what it is.
READ = [
    (r"std", None, "BSD-3-Clause"),
    (r"golang\.org/x/.*", "BSD-Source-Code", "BSD-3-Clause"),
    (r"github\.com/golang/freetype", "GPL-2.0-or-later", "FTL OR GPL-2.0-or-later"),
    (r"github\.com/klauspost/compress", "Apache-2.0", "Apache-2.0 AND BSD-3-Clause AND MIT"),
    (r"gopkg\.in/yaml\.v3", "Apache-2.0", "Apache-2.0 AND MIT"),
]


def libtorch(version, lock):
    """libtorch as a component, with the hashes of the wheels that it is taken from."""
    wheel = re.search(rf"^torch=={re.escape(version)} (.*?)(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    hashes = re.findall(r"sha256:([0-9a-f]{64})", wheel.group(1)) if wheel else []
    return {
        "bom-ref": f"pkg:pypi/torch@{version}",
        "type": "library",
        "name": "libtorch",
        "version": version,
        "description": "taken from PyPI's wheels of torch, by hash; loaded when the program starts",
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": h} for h in hashes],
        "licenses": [{"license": {"id": "BSD-3-Clause"}}],
        "purl": f"pkg:pypi/torch@{version}",
    }


def licences(component):
    """The licences of a component as one expression of SPDX; None where none is known."""
    names = {
        x.get("expression") or x["license"].get("id") or x["license"].get("name") for x in component.get("licenses", [])
    }
    return " AND ".join(sorted(names)) or None


def correct(component):
    for name, says, is_of in READ:
        if re.fullmatch(name, component["name"]) and licences(component) == says:
            component["licenses"] = [{"expression": is_of}]


def main(found, version, lock, out):
    sbom = json.loads(pathlib.Path(found).read_text())
    for c in sbom["components"]:
        correct(c)
        if c["name"] == "github.com/sugarme/gotch":
            text = "its C++ (libtch), on libtorch, is compiled in; bindings/csrc is gopeft's own"
            c.setdefault("properties", []).append({"name": "gopeft:native", "value": text})
    torch = libtorch(version, pathlib.Path(lock).read_text())
    sbom["components"].append(torch)
    main_ref = sbom["metadata"]["component"]["bom-ref"]
    for d in sbom.get("dependencies", []):
        if d["ref"] == main_ref:
            d.setdefault("dependsOn", []).append(torch["bom-ref"])
    if out != "--licences":
        pathlib.Path(out).write_text(json.dumps(sbom, indent=2) + "\n")
        return
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["component", "version", "licence"])
    for c in sorted(sbom["components"], key=lambda c: c["name"]):
        # Go's library is that of whoever builds.
        table.writerow([c["name"], "" if c["name"] == "std" else c["version"], licences(c) or "unknown"])


if __name__ == "__main__":
    main(*sys.argv[1:])
