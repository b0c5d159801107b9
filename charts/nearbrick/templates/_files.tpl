{{/* Whether lists of files are served: not where others give out certificates, and none is given for the operator. */}}
{{- define "nearbrick.files" -}}
{{- /* What an older release had no value for (helm upgrade --reuse-values) is as in values.yaml. */}}
{{- $files := .Values.files | default (dict "enabled" true) -}}
{{- if and $files.enabled (or (eq .Values.certificates.from "operator") $files.certificateSecret) -}}
yes
{{- end -}}
{{- end -}}
