"""A grid search over a pipeline, with scikit-learn's tools and this package's classifier.

    pip install 'fmnist-fast[sklearn]'
    python examples/grid_search.py

Handwritten digits, 1,797 images of 8x8: four parameter combinations, five folds, on all cores.
"""

from time import perf_counter

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fmnist_fast import MLPClassifier

GRID = {
    "mlpclassifier__alpha": [1e-4, 1e-1],
    "mlpclassifier__hidden_layer_sizes": [(32,), (128, 64)],
}


def main() -> None:
    """Search, and print the best settings and their accuracy on held-out rows."""
    rows, labels = load_digits(return_X_y=True)
    rows_train, rows_test, labels_train, labels_test = train_test_split(
        rows, labels, random_state=0
    )
    classifier = MLPClassifier(max_iter=60, schedule="onecycle", random_state=0)
    pipeline = make_pipeline(StandardScaler(), classifier)
    start = perf_counter()
    search = GridSearchCV(pipeline, GRID, n_jobs=-1).fit(rows_train, labels_train)
    print(f"{len(search.cv_results_['params'])} combinations in {perf_counter() - start:.1f} s")
    for name, value in search.best_params_.items():
        print(f"{name.removeprefix('mlpclassifier__')} = {value}")
    print(f"cross-validated accuracy: {100 * search.best_score_:.1f} %")
    print(f"test accuracy: {100 * search.score(rows_test, labels_test):.1f} %")


if __name__ == "__main__":
    main()
