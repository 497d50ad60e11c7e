package cachesidecar

import (
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestPublicAPI checks that no exported declaration of the public packages names a type of
// an internal package: a program that uses them could not name that type.
func TestPublicAPI(t *testing.T) {
	ours, exports := list(t, ".")
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	checked := 0
	for _, p := range ours {
		name := rel(p.ImportPath)
		public := name == "." || name == "client" || name == "sidecar" || name == "loader" ||
			strings.HasPrefix(name, "loader/") && !strings.Contains(name, "internal")
		if !public {
			continue
		}
		pkg, err := imp.Import(p.ImportPath)
		testenv.Must(t, err)
		checked++
		for _, internal := range internalTypes(pkg) {
			t.Errorf("%s: %s", name, internal)
		}
	}
	if checked < 9 {
		t.Errorf("%d packages are checked: the list of public packages has shrunk", checked)
	}
}

// internalTypes returns the exported declarations of a package that name a type of an
// internal package, with the type.
func internalTypes(pkg *types.Package) (found []string) {
	scope := pkg.Scope()
	for _, name := range scope.Names() {
		o := scope.Lookup(name)
		if !o.Exported() {
			continue
		}
		w := walker{pkg: pkg, seen: map[types.Type]bool{}}
		if tn, ok := o.(*types.TypeName); ok && !tn.IsAlias() {
			w.declaration(tn.Type().(*types.Named))
		} else {
			w.walk(o.Type())
		}
		for _, internal := range w.found {
			found = append(found, name+" names "+internal)
		}
	}
	return found
}

// walker collects the internal types that a declaration names.
type walker struct {
	pkg   *types.Package
	seen  map[types.Type]bool
	found []string
}

// declaration walks a type's definition and its exported methods.
func (w *walker) declaration(n *types.Named) {
	w.walk(n.Underlying())
	for m := range n.Methods() {
		if m.Exported() {
			w.walk(m.Signature())
		}
	}
}

func (w *walker) walk(t types.Type) {
	if w.seen[t] {
		return
	}
	w.seen[t] = true
	switch t := t.(type) {
	case *types.Named:
		w.named(t.Obj())
		for a := range t.TypeArgs().Types() {
			w.walk(a)
		}
	case *types.Alias:
		w.named(t.Obj())
		w.walk(t.Rhs())
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() {
				w.walk(f.Type())
			}
		}
	case *types.Interface:
		for m := range t.Methods() {
			if m.Exported() {
				w.walk(m.Signature())
			}
		}
	case *types.Signature:
		w.walk(t.Params())
		w.walk(t.Results())
	case *types.Tuple:
		for v := range t.Variables() {
			w.walk(v.Type())
		}
	case *types.Map:
		w.walk(t.Key())
		w.walk(t.Elem())
	case interface{ Elem() types.Type }: // pointer, slice, array, channel
		w.walk(t.Elem())
	}
}

// named notes a type of an internal package, and a type that the package keeps to itself.
func (w *walker) named(o *types.TypeName) {
	switch {
	case o.Pkg() == nil: // a type of the language
	case strings.Contains(o.Pkg().Path()+"/", "/internal/"):
		w.found = append(w.found, o.Pkg().Path()+"."+o.Name())
	case o.Pkg() == w.pkg && !o.Exported():
		w.found = append(w.found, o.Name()+", which is not exported")
	}
}

// TestInternalTypes checks that the search finds internal types wherever a declaration
// can name them.
func TestInternalTypes(t *testing.T) {
	internal := types.NewPackage("example.org/a/internal/b", "b")
	secret := types.NewNamed(types.NewTypeName(0, internal, "Secret", nil), types.NewStruct(nil, nil), nil)
	field := func(name string, typ types.Type) types.Type {
		return types.NewStruct([]*types.Var{types.NewField(0, nil, name, typ, false)}, nil)
	}
	in := types.NewTuple(types.NewParam(0, nil, "", types.NewSlice(types.NewPointer(secret))))
	for _, tc := range []struct {
		name string
		typ  types.Type
		want int
	}{
		{"field", field("F", secret), 1},
		{"hidden field", field("f", secret), 0},
		{"field of a field", field("F", field("G", types.NewMap(types.Typ[types.String], secret))), 1},
		{"parameter", types.NewSignatureType(nil, nil, nil, in, nil, false), 1},
		{"result", field("F", types.NewSignatureType(nil, nil, nil, nil, in, false)), 1},
		{"channel", types.NewChan(types.SendRecv, secret), 1},
		{"plain", field("F", types.Typ[types.Int]), 0},
	} {
		pkg := types.NewPackage("example.org/a", "a")
		pkg.Scope().Insert(types.NewVar(0, pkg, "V", tc.typ))
		if got := internalTypes(pkg); len(got) != tc.want {
			t.Errorf("%s: %q, want %d", tc.name, got, tc.want)
		}
	}
}
