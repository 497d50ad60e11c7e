#compdef cachesidecar
# Completes the command line of cachesidecar in zsh. Load it after compinit with:
#     source <(cachesidecar completion zsh)
# or write it to a file _cachesidecar in a folder of $fpath.
_cachesidecar() {
    local line tab=$'\t' program=${words[1]/#\~/$HOME}
    local -a found
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            _files
            return
        fi
        found+=("${${line%%$tab*}//:/\\:}:${line#*$tab}")
    done < <("$program" complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe -V cachesidecar found
}
if [[ ${funcstack[1]-} == _cachesidecar ]]; then
    _cachesidecar "$@" # the file is a function of $fpath
else
    compdef _cachesidecar cachesidecar
fi
