import pandas as pd
from sklearn.linear_model import LinearRegression
import sys

# Load dataset
data = pd.read_csv(sys.argv[1])
X = data[['feature1', 'feature2']]
y = data['target']

# Train model
model = LinearRegression()
model.fit(X, y)

# Save results
print(f"Coefficients: {model.coef_}")
print(f"Intercept: {model.intercept_}")
