# What guides have at hand before they begin, for their tests; and how their blocks are run.

guide_runs() { # PLACE: the commands that follow are of this place
  echo "== $1" >&2
}

guide_has() { # PROGRAM PLACE
  command -v "$1" >/dev/null || { echo "SKIPPED: $2: there is no $1 here" >&2; return 1; }
}

guide_writes() { # PATH: what is in this file
  install -d "$(dirname "$1")"
  cat >"$1"
}

# Runs the commands on standard input that follow `$ `, and looks for the lines between them in what they print.
guide_shows() { # PLACE
  local line command='' expected=()
  echo "== $1" >&2
  while IFS= read -r line; do
    if [[ $line == '$ '* ]]; then
      guide_compares "$1" "$command" "${expected[@]}"
      command=${line#'$ '} expected=()
      while [[ $command == *'\' ]] && IFS= read -r line; do command+=$'\n'$line; done
    else
      expected+=("$line")
    fi
  done
  guide_compares "$1" "$command" "${expected[@]}"
}

guide_compares() { # PLACE COMMAND LINE…
  local place=$1 command=$2 output rest line part parts
  shift 2
  [[ -n $command ]] || return 0
  output=$(set +e +o pipefail; eval "$command" 2>&1 </dev/null) || true
  rest=$(tr -s ' \t' ' ' <<<"$output")
  for line in "$@"; do
    line=$(tr -s ' \t' ' ' <<<"$line")
    parts=${line//.../$'\n'}
    while IFS= read -r part; do
      part=${part#"${part%%[! ]*}"} part=${part%"${part##*[! ]}"}
      [[ -n $part ]] || continue
      if [[ $rest != *"$part"* ]]; then
        printf '%s: %s\ndoes not print "%s" (any more); it prints\n%s\n' "$place" "$command" "$part" "$output" >&2
        exit 1
      fi
      rest=${rest#*"$part"}
    done <<<"$parts"
  done
}

# The program is installed.
given_portcullis() {
  install -D -m 755 "$THERE/portcullis" /usr/lib/portcullis/portcullis
  ln -sf ../lib/portcullis/portcullis /usr/bin/portcullis
}

# The package is installed: program, unit, user, directories.
given_package() {
  [[ -e portcullis.deb ]] || package_at portcullis.deb
  dpkg --force-confold --install portcullis.deb >/dev/null
}

# A package of the program under test.
package_at() { # FILE [VERSION]
  local out
  out=$(mktemp -d)
  (cd "$SOURCE" && conf/packaging/deb --binary "$THERE/portcullis" --out "$out" --version "${2:-1.0-1}" >/dev/null)
  mv "$out"/*.deb "$1"
}

# A registry on 127.0.0.1:5000, with the package's service.
given_registry() {
  cat >/etc/docker/registry/config.yml <<'END'
version: 0.1
storage:
  filesystem: { rootdirectory: /var/lib/docker-registry }
  delete: { enabled: true }
http: { addr: 127.0.0.1:5000 }
END
  systemctl start docker-registry
}

# A CA in pki/, with clients ci-7 (OU team-a) and ci-8 (OU team-b), made by `portcullis pki`.
given_pki() {
  given_portcullis
  (umask 077 && openssl rand -hex 32 >pass)
  portcullis pki init --name Example --passphrase-file pass >/dev/null
  portcullis pki server registry.example.com --passphrase-file pass >/dev/null
  portcullis pki client ci-7 --ou team-a --registry registry.example.com --passphrase-file pass >/dev/null
  portcullis pki client ci-8 --ou team-b --registry registry.example.com --passphrase-file pass >/dev/null
}

# What a gateway is configured with, as the package's service wants it.
given_configuration() {
  [[ -d pki ]] || given_pki
  install -d /etc/portcullis
  cp -n "$SOURCE"/conf/packaging/debian/{portcullis,policy}.yaml /etc/portcullis/
  install -m 644 pki/servers/registry.example.com/server.crt /etc/portcullis/server.crt
  install -m 600 pki/servers/registry.example.com/server.key /etc/portcullis/server.key
  install -m 644 pki/client-ca.pem /etc/portcullis/ca.crt
  install -m 644 pki/ca.crl /etc/portcullis/ca.crl
}

# A gateway on port 443 as the package sets it up, in front of a registry with the image shared/base:1.
given_gateway() {
  given_package
  given_configuration
  given_registry
  systemctl start portcullis
  sample_image shared/base:1
}

# An image of one small file, put into the registry past the gateway.
sample_image() { # NAME
  local work
  work=$(mktemp -d)
  mkdir "$work/image"
  tar -C /etc -cf "$work/layer.tar" hostname
  local layer config
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$layer" >"$work/config"
  config=$(sha256sum "$work/config" | cut -d' ' -f1)
  cp "$work/layer.tar" "$work/image/$layer" && cp "$work/config" "$work/image/$config"
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%d}]}' \
    "$config" "$(stat -c %s "$work/config")" "$layer" "$(stat -c %s "$work/layer.tar")" >"$work/image/manifest.json"
  printf 'Directory Transport Version: 1.1\n' >"$work/image/version"
  skopeo --insecure-policy copy --quiet --dest-tls-verify=false "dir:$work/image" "docker://127.0.0.1:5000/$1" >/dev/null
}

# docker with an image shared/tool:1 of one file.
given_docker() {
  mkdir -p /etc/docker
  systemctl start docker
  tar -C /etc -c hostname | docker import - tool >/dev/null
}

# A client's directory below /etc/docker/certs.d.
given_certs() {
  install -d /etc/docker/certs.d
  cp -R pki/clients/ci-7/docker/certs.d/registry.example.com /etc/docker/certs.d/
}

# A gateway that has refused ci-7 a pull.
given_refusal() {
  [[ -e /etc/portcullis/ca.crl ]] || given_gateway
  curl --silent --cacert pki/clients/ci-7/ca.crt --cert pki/clients/ci-7/client.crt --key pki/clients/ci-7/client.key \
    https://registry.example.com/v2/team-b/app/manifests/1 >/dev/null
  until grep -q '"denied"' /var/log/portcullis/access.log; do sleep 0.05; done
}

# The source, with a program that was built from it.
given_source() {
  cp -R "$SOURCE/conf" .
  install -D "$THERE/portcullis" target/release/portcullis
}

# The example policy in force by a configuration in /etc/portcullis, and the certificate of ci-7 as that policy means it.
given_example_policy() {
  given_portcullis
  given_configuration
  cp "$SOURCE/conf/policy.yaml" /etc/portcullis/policy.yaml
  sed -i 's|/run/credentials/portcullis.service/||' /etc/portcullis/portcullis.yaml
  cp "$SOURCE"/conf/policy*.yaml .
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=Example Client CA" -keyout example.key -out example.crt 2>/dev/null
  openssl req -x509 -CA example.crt -CAkey example.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=ci-7" \
    -addext subjectAltName=URI:spiffe://example.com/team-a/build -addext extendedKeyUsage=clientAuth \
    -addext basicConstraints=critical,CA:FALSE -keyout ci-7.key -out ci-7.crt 2>/dev/null
}

# An access log with a request that a shadow policy would have decided otherwise.
given_shadow_records() {
  echo '{"identity":"ci-7","method":"GET","target":"/v2/","decision":"allow","shadow_decision":"deny"}' >access.log
}

# The gateway with the limits of docs/quotas.md, and a client's files.
given_quotas() {
  given_gateway
  cat >>/etc/portcullis/policy.yaml <<'END'
  - { name: team, subjects: [any], repositories: [team/**], actions: [pull], effect: allow }
limits:
  - { name: everybody, subjects: [any], manifest_pulls: { count: 100, window: 6h } }
END
  systemctl restart portcullis
  sample_image team/app:v1
  cp pki/clients/ci-7/client.crt ci-7.crt
  cp pki/clients/ci-7/client.key ci-7.key
  install -m 644 pki/clients/ci-7/ca.crt /usr/local/share/ca-certificates/example.crt
  update-ca-certificates >/dev/null
}

# Envoy as a service, with certificates in /etc/envoy/tls; ci-7 may in, the others not; the package of the gateway.
given_envoy() {
  ln -s "$ENVOY" /usr/local/bin/envoy
  given_package
  (umask 077 && openssl rand -hex 32 >pass)
  portcullis pki init --name Example --passphrase-file pass >/dev/null
  portcullis pki server registry.example.com --passphrase-file pass >/dev/null
  local client
  for client in ci-7 revoked; do
    portcullis pki client $client --spiffe spiffe://corp.example/team-a/$client --passphrase-file pass >/dev/null
  done
  portcullis pki client stranger --passphrase-file pass >/dev/null
  portcullis pki revoke revoked --passphrase-file pass >/dev/null
  for client in ci-7 revoked stranger; do cp pki/clients/$client/client.crt $client.crt; cp pki/clients/$client/client.key $client.key; done
  cp pki/clients/ci-7/ca.crt ca.crt
  install -d /etc/envoy/tls /var/log/envoy
  cp pki/servers/registry.example.com/server.{crt,key} /etc/envoy/tls/
  cp pki/client-ca.pem /etc/envoy/tls/ca.crt
  cp pki/ca.crl /etc/envoy/tls/ca.crl
  printf '[Service]\nExecStart=/usr/local/bin/envoy --config-path /etc/envoy/envoy.yaml --disable-hot-restart --log-level error\n' \
    >/etc/systemd/system/envoy.service
  given_registry
  sample_image team-a/app:1
  envoy --mode validate --config-path /etc/envoy/envoy.yaml
  systemctl start envoy
  until curl --silent http://127.0.0.1:9901/ready | grep -q LIVE; do sleep 0.1; done
}

# The gateway, docker with an image `tool`, and the three files of ci-7 (OU team-a) as others hand them out.
given_client_files() {
  given_gateway
  given_docker
  cp pki/clients/ci-7/client.{crt,key} pki/clients/ci-7/ca.crt .
}

# A gateway of the package 1.0-1 with systemd's directory, a package 1.1-1, and a client that asks all the time: what was refused
# to it stands in `refused`.
given_two_packages() {
  package_at portcullis_1.0-1_amd64.deb 1.0-1
  package_at portcullis_1.1-1_amd64.deb 1.1-1
  cp portcullis_1.0-1_amd64.deb portcullis.deb
  given_gateway
  mkdir -p /run/systemd/system
  : >refused
  (
    while sleep 0.05; do
      curl --fail --silent --show-error --cacert pki/clients/ci-7/ca.crt --cert pki/clients/ci-7/client.crt \
        --key pki/clients/ci-7/client.key https://registry.example.com/v2/ >/dev/null 2>>refused || echo refused >>refused
    done
  ) &
}
