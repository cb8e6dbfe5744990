#!/bin/sh
# Makes the passwords of the compose file, once: what is there already stays.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
for name in signing s3_secret_key git_password grafana_password; do
    [ -e "secrets/$name" ] || openssl rand -hex 32 > "secrets/$name"
done
# the containers' users are not the one who runs this
chmod 700 secrets && chmod 644 secrets/*
