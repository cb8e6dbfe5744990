#!/bin/sh
# Makes the repositories named in REPOSITORIES where they are missing, then serves them to whoever has the password.
set -eu
umask 077
export HOME=/tmp GIT_PROJECT_ROOT="${GIT_PROJECT_ROOT:-/srv/git}" USERS="${USERS:-/tmp/users}"
GIT_BACKEND="$(git --exec-path)/git-http-backend"
export GIT_BACKEND
for name in ${REPOSITORIES:-}; do
    [ -d "$GIT_PROJECT_ROOT/$name.git" ] || git init --quiet --bare --initial-branch=main "$GIT_PROJECT_ROOT/$name.git"
    git --git-dir="$GIT_PROJECT_ROOT/$name.git" config http.receivepack true
done
printf 'x-access-token:%s\n' "$(cat "${PASSWORD_FILE:-/run/secrets/git_password}")" > "$USERS"
exec lighttpd -D -f "$(dirname "$0")/lighttpd.conf"
