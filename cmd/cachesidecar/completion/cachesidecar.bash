# Completes the command line of cachesidecar in bash (3.2 or later). Load it with:
#     source <(cachesidecar completion bash)
_cachesidecar() {
    local line cur=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]}
    program=${program/#\~/$HOME}
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :files)
            compopt -o filenames 2>/dev/null
            if [[ $cur == = ]]; then cur=; fi
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur")
            ;;
        *) COMPREPLY+=("$line") ;;
        esac
    done < <("$program" complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _cachesidecar cachesidecar
