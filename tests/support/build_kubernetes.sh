#!/usr/bin/env bash
# Kubernetes' servers from Debian's source package (1.20, the newest that Debian 12 has), for
# kubernetes_node.py: a quarter of an hour on two busy cores, 3 GB in a temporary folder.
#
#   tests/support/build_kubernetes.sh FOLDER      as root, on Debian 12; FOLDER gets three programs
set -euo pipefail

target=$(realpath -m "${1:?usage: $0 FOLDER}")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

apt-get install -y -q golang-go golang-github-modern-go-reflect2-dev etcd-server make rsync dpkg-dev iproute2 openssl

# Sources of Debian's own packages, without a change to this machine's lists.
mkdir -p "$work/lists/partial" "$work/parts" "$work/source"
sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > "$work/sources.list" 2>/dev/null || true
sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources > "$work/parts/debian.sources" 2>/dev/null || true
apt=(-o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists")
apt-get "${apt[@]}" update -q
(cd "$work/source" && apt-get "${apt[@]}" source -q --download-only kubernetes && tar xzf kubernetes_*.orig.tar.gz)
cd "$work"/source/kubernetes-*/

# Its own copy of reflect2 crashes with Go 1.18 and newer, at the first custom resource.
copy=vendor/github.com/modern-go/reflect2
rm -f "$copy"/*.go "$copy"/*.s
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$copy"
rm -f "$copy"/*_test.go

export GOPATH=$PWD/.go GOCACHE=$work/cache HOME=$work GOPROXY=off GOSUMDB=off GOFLAGS= GO111MODULE=auto CGO_ENABLED=0
version=$(basename "$PWD")
version=${version#kubernetes-}
export KUBE_GIT_VERSION=v$version KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_TREE_STATE=archive KUBE_GIT_COMMIT=debian
mkdir -p .go/src/k8s.io
ln -sfn "$PWD" .go/src/k8s.io/kubernetes
make WHAT="cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler"

mkdir -p "$target"
cp _output/bin/kube-apiserver _output/bin/kube-controller-manager _output/bin/kube-scheduler "$target"
