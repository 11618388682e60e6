{{- define "portcullis.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "portcullis.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "portcullis.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "portcullis.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "portcullis.selector" -}}
app.kubernetes.io/name: {{ include "portcullis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "portcullis.gateway" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "portcullis.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "portcullis.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "portcullis.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "portcullis.serverSecret" -}}
{{- default (printf "%s-server" (include "portcullis.fullname" .)) .Values.server.secretName -}}
{{- end -}}

{{- define "portcullis.clientCASecret" -}}
{{- if .Values.clientCA.certificate.enabled -}}
{{- printf "%s-client-ca" (include "portcullis.fullname" .) -}}
{{- else -}}
{{- .Values.clientCA.secretName -}}
{{- end -}}
{{- end -}}

{{- /* The port of an address such as 0.0.0.0:8443 or [::]:8443. */ -}}
{{- define "portcullis.port" -}}
{{- regexFind "[0-9]+$" (toString .) -}}
{{- end -}}

{{- /* Seconds of a time as the gateway writes it, rounded up. */ -}}
{{- define "portcullis.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{- div (add $number 999) 1000 -}}
{{- else if eq $unit "s" -}}{{- $number -}}
{{- else if eq $unit "m" -}}{{- mul $number 60 -}}
{{- else if eq $unit "h" -}}{{- mul $number 3600 -}}
{{- else -}}{{- fail (printf "%q is no time: write 500ms, 30s, 5m or 1h" .) -}}
{{- end -}}
{{- end -}}

{{- /* The gateway's configuration: what the values say, and what follows from the other values. */ -}}
{{- define "portcullis.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "policy" "policy.yaml" -}}
{{- if and .Values.registry.enabled (not $config.upstreams) -}}
{{- $url := printf "http://%s-registry:5000" (include "portcullis.fullname" .) -}}
{{- $_ := set $config "upstreams" (list (dict "name" "registry" "urls" (list $url))) -}}
{{- end -}}
{{- $crls := list -}}
{{- if or .Values.crl.configMapName .Values.crl.secretName -}}
{{- $crls = append $crls (dict "file" (printf "/etc/portcullis/crl/%s" .Values.crl.key)) -}}
{{- end -}}
{{- range .Values.crl.urls -}}
{{- $crls = append $crls (dict "url" .) -}}
{{- end -}}
{{- if $crls -}}
{{- $_ := set $config "revocation" (merge (dict "crls" $crls) (default dict $config.revocation)) -}}
{{- end -}}
{{- if .Values.redis.address -}}
{{- $shared := default dict $config.shared_limits -}}
{{- $redis := merge (dict "address" .Values.redis.address) (default dict $shared.redis) -}}
{{- $_ := set $config "shared_limits" (merge (dict "redis" $redis) $shared) -}}
{{- end -}}
{{- if include "portcullis.uploadKey" . -}}
{{- $_ := set $config "uploads" (merge (dict "key_file" "/etc/portcullis/uploads/uploads.key") (default dict $config.uploads)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* The Secret with the key that ties uploads to their clients, unless the configuration says how. All gateways need the same one:
an upload goes on with another gateway than the one that it began with. */ -}}
{{- define "portcullis.uploadKey" -}}
{{- $uploads := default dict .Values.config.uploads -}}
{{- if and (not $uploads.key_file) (ne (toString $uploads.bind) "false") -}}
{{- default (printf "%s-uploads" (include "portcullis.fullname" .)) .Values.uploads.secretName -}}
{{- end -}}
{{- end -}}

{{- /* What of the configuration takes a new Pod; everything else is reloaded. */ -}}
{{- define "portcullis.fixed" -}}
{{- $config := include "portcullis.config" . | fromYaml -}}
{{- $fixed := pick $config "health" "limits" "threads" "state_directory" "access_log" "audit_log" "log" -}}
{{- $_ := set $fixed "admin.address" (dig "address" "" ($config.admin | default dict)) -}}
{{- range $index, $listener := $config.listeners -}}
{{- $_ := set $fixed (printf "listener%d" $index) (list $listener.name $listener.addresses) -}}
{{- end -}}
{{- toJson $fixed | sha256sum | trunc 16 -}}
{{- end -}}

{{- /* The name of a listener's port: its own, as far as that is one, or registry, listener-2 and so on. */ -}}
{{- define "portcullis.portName" -}}
{{- $index := index . 0 -}}
{{- $listener := index . 1 -}}
{{- if $listener.name -}}
{{- $listener.name | toString | lower | trunc 15 | trimSuffix "-" -}}
{{- else if eq $index 0 -}}
registry
{{- else -}}
{{- printf "listener-%d" (add $index 1) -}}
{{- end -}}
{{- end -}}
