// Checks resources of cert-manager and of Prometheus' operator against their definitions:
//   node validate.mjs NODE_MODULES < manifests.json
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const places = {
  "cert-manager.io/v1": ["cert-manager/cert-manager.io/v1", "mjs"],
  "monitoring.coreos.com/v1": ["prometheus-operator/monitoring.coreos.com/v1", "js"],
};
let faults = 0;
let checked = 0;
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const place = places[manifest.apiVersion];
  if (!place) continue;
  const [directory, ending] = place;
  const file = `${process.argv[2]}/@kubernetes-models/${directory}/${manifest.kind}.${ending}`;
  const model = (await import(pathToFileURL(file)))[manifest.kind];
  try {
    new model(manifest).validate();
  } catch (error) {
    faults += 1;
    console.log(`${manifest.kind} ${manifest.metadata.name}: ${error.message}`);
  }
  checked += 1;
}
console.log(`${checked} checked`);
process.exit(faults ? 1 : 0);
