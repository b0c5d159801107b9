{{/* Whether lists of files are served: not where others give out certificates, and none is given for the operator. */}}
{{- define "nearbrick.files" -}}
{{- if and .Values.files.enabled (or (eq .Values.certificates.from "operator") .Values.files.certificateSecret) -}}
yes
{{- end -}}
{{- end -}}
