"""Checks manifests against the schemas of Kubernetes:  validate.py SCHEMAS < manifests

The schemas are strict: a key that Kubernetes doesn't know is a fault. Kinds of other APIs are left to validate.mjs.
"""

import json
import pathlib
import sys
import warnings

import yaml

warnings.simplefilter("ignore")
import jsonschema  # noqa: E402

schemas = pathlib.Path(sys.argv[1]).resolve()
definitions = schemas / "_definitions.json"
# What the schemas name by an address on the Internet is the file beside them.
base = "https://kubernetes.io/api/"
store = {base + definitions.name: json.loads(definitions.read_text())}
faults = checked = 0
for manifest in filter(None, yaml.safe_load_all(sys.stdin)):
    group, _, version = manifest["apiVersion"].rpartition("/")
    if group.endswith(("cert-manager.io", "coreos.com")):
        continue
    file = schemas / ("-".join(filter(None, [manifest["kind"].lower(), group.split(".")[0], version])) + ".json")
    schema = json.loads(file.read_text())
    resolver = jsonschema.RefResolver(base + file.name, schema, store=store)
    for fault in jsonschema.Draft7Validator(schema, resolver=resolver).iter_errors(manifest):
        faults += 1
        print(f"{manifest['kind']} {manifest['metadata']['name']}: {'.'.join(map(str, fault.path))}: {fault.message}")
    checked += 1
print(f"{checked} checked")
sys.exit(bool(faults))
