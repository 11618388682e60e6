# How the situations of docs/troubleshooting.md come about, one after the other on the same machine.

# Where the certificates of ci-7 are, in the forms that clients want.
shown_d=/etc/docker/certs.d/registry.example.com

given_trouble() {
  given_client_files
  sed -i 's|127.0.0.1:9090|0.0.0.0:9090|' /etc/portcullis/portcullis.yaml
  sed -i 's|    urls:|    verify_digests: true\n    urls:|' /etc/portcullis/portcullis.yaml
  cat >>/etc/portcullis/policy.yaml <<'END'
  - { name: releases, subjects: [any], repositories: ["releases/**"], actions: [pull, push], effect: allow }
  - { name: mirror, subjects: [any], repositories: ["mirror/**"], actions: [pull, push], effect: allow }
END
  systemctl restart portcullis
  systemctl start containerd
  skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://127.0.0.1:5000/shared/base:1 dir:image
  docker tag tool registry.example.com/team-b/tool:1
  docker tag tool registry.example.com/team-a/tool:1
  docker tag tool registry.example.com/releases/tool:1
  shown_good_certificate
}

shown_good_certificate() {
  rm -rf /etc/docker/certs.d certs hosts
  given_certs
  cp -R $shown_d certs
  cp -R pki/clients/ci-7/containerd/certs.d hosts
}

shown_without_certificate() { rm {$shown_d,certs}/client.*; }

shown_foreign_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=foreign -addext extendedKeyUsage=clientAuth \
    -addext basicConstraints=critical,CA:FALSE -keyout foreign.key -out foreign.crt 2>/dev/null
}

# A certificate of the gateway's second CA, which has ended; the first can't make such ones.
shown_expired_certificate() {
  shown_good_certificate
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=Old CA" -keyout old.key -out old.crt 2>/dev/null
  : >old.index
  printf '[ca]\ndefault_ca=c\n[c]\ndatabase=old.index\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=p\ncrlnumber=old.number\n[p]\ncommonName=supplied\n[e]\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n' >old.cnf
  echo 01 >old.number
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=late -keyout late.key -out late.csr 2>/dev/null
  openssl ca -batch -notext -config old.cnf -cert old.crt -keyfile old.key -extensions e -startdate 20240101000000Z \
    -enddate 20250101000000Z -in late.csr -out late.crt 2>/dev/null
  openssl ca -config old.cnf -cert old.crt -keyfile old.key -gencrl -crldays 7 -out old.crl 2>/dev/null
  cat old.crt >>/etc/portcullis/ca.crt
  cat old.crl >>/etc/portcullis/ca.crl
  cp late.crt $shown_d/client.cert && cp late.key $shown_d/client.key
  shown_until curl --cacert ca.crt --cert late.crt --key late.key https://registry.example.com/v2/ expired
}

shown_revoked_certificate() {
  portcullis pki client gone --ou team-a --registry registry.example.com --passphrase-file pass >/dev/null
  portcullis pki revoke gone --passphrase-file pass >/dev/null
  cp pki/ca.crl /etc/portcullis/ca.crl
  cp pki/clients/gone/client.crt pki/clients/gone/client.key .
  cp client.crt $shown_d/client.cert && cp client.key $shown_d/client.key
  cp client.crt hosts/registry.example.com/client.cert && cp client.key hosts/registry.example.com/
  shown_until curl --cacert ca.crt --cert client.crt --key client.key https://registry.example.com/v2/ revoked
}

# The list of the issuing CA is gone from the file, and a gateway that starts anew has none.
shown_list_that_ran_out() {
  shown_good_certificate
  cp pki/clients/ci-7/client.{crt,key} .
  systemctl stop portcullis
  rm -rf /var/lib/portcullis/*
  : >/etc/portcullis/ca.crl.kept && cp /etc/portcullis/ca.crl /etc/portcullis/ca.crl.kept
  cp old.crl /etc/portcullis/ca.crl
  systemctl start portcullis
}

shown_without_ca() {
  mv /etc/portcullis/ca.crl.kept /etc/portcullis/ca.crl
  rm $shown_d/ca.crt
  shown_until curl --include --cacert ca.crt --cert client.crt --key client.key https://registry.example.com/v2/ 'HTTP/2 200'
}

shown_other_name() {
  shown_good_certificate
  echo "192.0.2.10 mirror.example.com" >>/etc/hosts
}

shown_plain_port() { :; }

shown_without_key() { rm $shown_d/client.key; }

shown_as_crt() {
  shown_good_certificate
  mv $shown_d/client.cert $shown_d/client.crt
}

shown_other_key() {
  shown_good_certificate
  cp pki/clients/ci-8/client.key other.key
  cp other.key $shown_d/client.key
}

shown_immutable_tag() {
  docker push registry.example.com/releases/tool:1 >/dev/null
  tar -C /etc -c passwd | docker import - other >/dev/null
  docker tag other registry.example.com/releases/tool:1
}

shown_read_only() {
  printf 'read_only: { enabled: true, message: "moving until 14:00" }\n' >>/etc/portcullis/portcullis.yaml
  shown_until docker push registry.example.com/team-a/tool:1 'moving until'
}

shown_quota() {
  sed -i '/^read_only/d' /etc/portcullis/portcullis.yaml
  printf 'limits:\n  - { name: few, subjects: [any], manifest_pulls: { count: 1, window: 1h } }\n' >>/etc/portcullis/policy.yaml
  docker rmi registry.example.com/shared/base:1 >/dev/null 2>&1 || true
  shown_until shown_pull TOOMANYREQUESTS
}

shown_no_quota() {
  sed -i '/^limits/,$d' /etc/portcullis/policy.yaml
  shown_until shown_pull schemaVersion
}

shown_pull() {
  curl --silent --cacert ca.crt --cert client.crt --key client.key --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
    https://registry.example.com/v2/shared/base/manifests/1
}

# An upload that ci-8 began.
shown_other_clients_upload() {
  upload=$(curl --silent --include --cacert ca.crt --cert pki/clients/ci-8/client.crt --key pki/clients/ci-8/client.key --request POST \
    https://registry.example.com/v2/mirror/tool/blobs/uploads/ | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  upload=https://registry.example.com${upload#https://registry.example.com}
  [[ $upload == */blobs/uploads/* ]]
}

shown_damaged_blob() {
  local layer
  layer=$(jq -r '.layers[0].digest' image/manifest.json)
  layer=${layer#sha256:}
  printf X | dd of="/var/lib/docker-registry/docker/registry/v2/blobs/sha256/${layer:0:2}/$layer/data" bs=1 seek=600 conv=notrunc 2>/dev/null
}

shown_no_registry() {
  systemctl stop docker-registry
  shown_until curl --silent http://127.0.0.1:9090/metrics 'upstream_healthy{.*} 0'
}

shown_until() { # COMMAND… TEXT: until the command prints it
  local tries=0 text=${*: -1}
  until grep -q "$text" <<<"$("${@:1:$#-1}" 2>&1)"; do
    ((++tries < 600)) || { echo "never printed: $text" >&2; exit 1; }
    sleep 0.1
  done
}
